"""Official-looking checkpoints of a small random model, for tests that must not need the golden data."""

from pathlib import Path

import torch
from torch import Tensor, nn

from mobile_avatar.models.bilayer.adaptive import AdaptiveBatchNorm, AdaptiveSpade
from mobile_avatar.models.bilayer.config import BilayerConfig
from mobile_avatar.models.bilayer.convert_official import network_pairs
from mobile_avatar.models.bilayer.model import BilayerModel
from mobile_avatar.models.bilayer.official_runs import BASE_NETWORKS, UPDATER

SMALL = BilayerConfig(
    image_size=64,
    emb_channels=4,
    emb_max_channels=16,
    tex_channels=4,
    tex_max_channels=16,
    inf_channels=2,
    inf_max_channels=8,
    pose_channels=12,
    enh_channels=4,
    enh_max_channels=8,
    enh_bottleneck=32,
    enh_blocks=2,
)


def random_model(config: BilayerConfig = SMALL, seed: int = 0) -> BilayerModel:
    """A model whose batch norms have random statistics, so that nothing cancels by luck."""
    torch.manual_seed(seed)
    model = BilayerModel(config).eval()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.3)
            layer.running_var.uniform_(0.3, 2)
            if layer.affine:
                nn.init.normal_(layer.weight, 1, 0.2)
                nn.init.normal_(layer.bias, 0, 0.2)
    return model


def official_state(model: BilayerModel, network: str) -> dict[str, Tensor]:
    """What the official code would have saved, spectral norm included."""
    state = {}
    for official, path in network_pairs(model, network):
        parent, _, name = path.rpartition(".")
        module = getattr(model.get_submodule(parent), name)
        if isinstance(module, nn.Conv2d | nn.Linear):
            flat = module.weight.detach().flatten(1)
            u, v = torch.randn(flat.shape[0]), torch.randn(flat.shape[1])
            # original / (u . (original v)) is the weight, whatever the original's scale, when u . (W v) = 1.
            u /= torch.dot(u, flat @ v)
            state |= {f"{official}.weight_u": u, f"{official}.weight_v": v, f"{official}.bias": module.bias.detach()}
            state[f"{official}.weight_orig"] = 3 * module.weight.detach()
        elif isinstance(module, AdaptiveBatchNorm | AdaptiveSpade):
            state |= {f"{official}.norm_layer.{k}": v for k, v in module.stats.state_dict().items()}
            if isinstance(module, AdaptiveSpade):
                state[f"{official}.pixel_feats"] = module.pixel_features.detach()
        elif isinstance(module, nn.Module):
            state |= {f"{official}.{k}": v for k, v in module.state_dict().items()}
        else:
            state[official] = module.detach()
    return state


def write_runs(folder: Path, model: BilayerModel) -> Path:
    """The official folder layout: a base run at two epochs and an enhancer run."""
    for epoch in (25, 50):
        for network in BASE_NETWORKS:
            path = folder / "runs" / "base" / "checkpoints" / f"{epoch}_{network}.pth"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(official_state(model, network), path)
    path = folder / "runs" / "enhancer" / "checkpoints" / f"75_{UPDATER}.pth"
    path.parent.mkdir(parents=True)
    torch.save(official_state(model, UPDATER), path)
    (folder / "runs" / "enhancer" / "args.txt").write_text(f"image_size: {model.config.image_size}\nseed: 1\n")
    return folder / "runs"
