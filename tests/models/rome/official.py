"""Official-looking files of a small random model, for tests that must not need the golden data."""

from pathlib import Path

import torch
from torch import Tensor, nn

from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.convert_official import CORE_PREFIXES
from mobile_avatar.models.rome.networks import RomeNetworks

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


def random_networks(config: RomeConfig = SMALL, seed: int = 0) -> RomeNetworks:
    """All parts, with statistics and a basis that are not the identity, so that nothing cancels by luck."""
    torch.manual_seed(seed)
    networks = RomeNetworks(config).eval()
    for layer in networks.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        networks.basis_regressor.fc.weight.mul_(0.02)  # untrained, it would blow the mesh up
    linear = networks.linear_basis
    linear.basis.copy_(torch.linalg.qr(torch.randn(linear.basis.shape))[0])
    linear.mean.normal_(0, 0.01)
    return networks


def official_core(networks: RomeNetworks) -> dict[str, Tensor]:
    """What rome.pth holds of the four networks."""
    return {
        f"{theirs}.{key}": value
        for theirs, ours in CORE_PREFIXES.items()
        for key, value in networks.part(ours).state_dict().items()
    }


def write_official(folder: Path, networks: RomeNetworks) -> Path:
    """A folder with all files of the release, as they are laid out there."""
    data = folder / "data"
    (folder / "DECA" / "data").mkdir(parents=True)
    data.mkdir()
    face = networks.face_encoder.state_dict()
    torch.save(official_core(networks), data / "rome.pth")
    torch.save(networks.basis_regressor.state_dict(), data / "linear_hair.pth")
    torch.save(networks.frame_regressor.state_dict(), data / "disp_model.pth")
    torch.save(networks.linear_basis.basis, data / "u_full.pt")
    torch.save(networks.linear_basis.mean, data / "mean_deform.pt")
    deca = {"E_flame": face, "E_detail": {"layers.2.bias": torch.zeros(128)}, "D_detail": {}}
    torch.save(deca, folder / "DECA" / "data" / "deca_model.tar")
    return folder
