"""Official-looking files of a small random model, for tests that must not need the golden data."""

from mobile_avatar.models.rome.config import RomeConfig

# Widths of the networks in the golden data; the vertex network there has full size.
SMALL = RomeConfig(
    image_size=64,
    tex_channels=8,
    tex_max_channels=64,
    geom_channels=8,
    geom_max_channels=64,
    img_channels=16,
    img_max_channels=128,
    n_shape=20,
    n_exp=10,
    n_vertices=601,
    resnet_channels=8,
    mobilenet_width=0.25,
)
