"""The mesh avatars that are trained here, from two CPU cores to the released widths: fields of RomeConfig."""

PRESETS: dict[str, dict[str, object]] = {
    # Trains on two CPU cores.
    "small": {
        "image_size": 64,
        **dict.fromkeys(("tex_channels", "geom_channels", "img_channels"), 8),
        **dict.fromkeys(("tex_max_channels", "geom_max_channels", "img_max_channels"), 64),
        "norm_groups": 4,
        "geom_outputs": 16,
        "mlp_channels": 64,
        "resnet_channels": 16,
        "mobilenet_width": 0.5,
    },
    # One small GPU, or a night of CPU.
    "medium": {
        "image_size": 128,
        **dict.fromkeys(("tex_channels", "geom_channels", "img_channels"), 16),
        **dict.fromkeys(("tex_max_channels", "geom_max_channels", "img_max_channels"), 128),
        "norm_groups": 8,
        "mlp_channels": 128,
        "resnet_channels": 32,
    },
    # Khakhulin et al., as released.
    "released": {},
}
