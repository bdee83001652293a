"""ROME's networks: official outputs, released sizes, folding, and properties that need no golden data."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.blocks import StandardisedConv, fold_standardisation, standardise
from mobile_avatar.models.rome.config import RomeConfig
from mobile_avatar.models.rome.encoding import harmonic_encoding
from mobile_avatar.models.rome.texture_encoder import TextureEncoder
from mobile_avatar.models.rome.unet import geometry_unet, rendering_unet
from mobile_avatar.models.rome.vertex_mlp import VertexMlp, vertex_features, vertex_offsets, with_movable_face
from tests.models.rome.official import SMALL

RELEASED = RomeConfig()
NETWORKS = {
    "autoencoder": TextureEncoder,
    "mesh_deformer": geometry_unet,
    "mlp_deformer": VertexMlp,
    "unet": rendering_unet,
}


def read(shared, name: str) -> dict[str, torch.Tensor]:
    with np.load(shared / "parity/rome" / f"{name}.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def official(shared, network: nn.Module, name: str) -> nn.Module:
    network.load_state_dict(read(shared, name), strict=True)
    return network.eval()


def digest(x: torch.Tensor) -> torch.Tensor:
    flat = x.double().flatten()
    places = torch.linspace(0, flat.numel() - 1, 16, dtype=torch.float64).long()
    return torch.cat([flat.mean()[None], flat.std()[None], flat[places]]).float()


def digests(network: nn.Module, names: list[str], *inputs: torch.Tensor) -> tuple[torch.Tensor, dict]:
    """Output, and the digest of every named part."""
    found = {}
    for name in names:
        part = network.get_submodule(name)
        part.register_forward_hook(lambda _, __, output, name=name: found.update({name: digest(output)}))
    return network(*inputs), found


@pytest.mark.parametrize("case", ["img_a", "img_b", "geom_a"])
@torch.no_grad()
def test_unet_equals_the_official_one(shared, case):
    golden, kind = read(shared, "01_unet"), case.split("_")[0]
    build = {"img": rendering_unet, "geom": geometry_unet}[kind]
    network = official(shared, build(SMALL), f"01_unet_{kind}_weights")
    names = [f"encoder.{i}" for i in range(4)] + [f"decoder.{i}" for i in range(3)]
    output, found = digests(network, names, golden[f"{case}/input"])
    near(output, golden[f"{case}/output"], 5e-4)
    for name in names:
        near(found[name], golden[f"{case}/digest/{name}"], 5e-4)


@torch.no_grad()
def test_a_single_standardised_convolution_equals_the_official_one(shared):
    golden = read(shared, "01_unet")
    network = official(shared, rendering_unet(SMALL), "01_unet_img_weights")
    main = network.encoder[1][0].main
    near(main[0](golden["wsconv/input"]), golden["wsconv/output"], 5e-5)
    near(main[1](main[0](golden["wsconv/input"])), golden["wsconv_gn/output"], 2e-5)


@pytest.mark.parametrize("case", ["tex_a", "tex_b"])
@torch.no_grad()
def test_texture_encoder_equals_the_official_one(shared, case):
    golden = read(shared, "02_texture_encoder")
    network = official(shared, TextureEncoder(SMALL), "02_texture_encoder_weights")
    names = [f"net.{i}" for i in range(25)]
    photo, matte = golden[f"{case}/input"].split([3, 1], dim=1)
    output, found = digests(network, names, photo, matte)
    near(output, golden[f"{case}/output"], 1e-3)
    for name in names if case == "tex_a" else ():
        near(found[name], golden[f"{case}/digest/{name}"], 1e-3)


@torch.no_grad()
def test_vertex_network_equals_the_official_one(shared):
    golden, encoding = read(shared, "03_deformer"), read(shared, "04_encoding")
    network = official(shared, VertexMlp(RELEASED), "03_mlp_weights")
    near(network(golden["mlp/input"]), golden["mlp/output"], 1e-6)

    features = vertex_features(golden["deform/latent_map"], encoding["vertex_uv"], RELEASED.octaves)
    near(features[0], golden["deform/mlp_input"], 3e-4)
    near(features[..., 32:34], encoding["uv_sampled_64"], 1e-6)
    near(features[..., 32:], encoding["uv_harmonic_64"], 3e-5)
    wide = vertex_features(torch.zeros(1, 1, 256, 256), encoding["vertex_uv"], 0)
    near(wide[..., 1:], encoding["uv_sampled_256"], 1e-6)

    moves = network(features)
    near(moves[0], golden["deform/mlp_output"], 1e-5)
    mask, normals = golden["deform/deforms_mask"], golden["deform/vertex_normals"]
    near(vertex_offsets(moves, mask, normals), golden["deform/offsets"], 1e-5)
    tight = with_movable_face(mask[0], encoding["vertex_uv"], read(shared, "00_model")["uv_face_eye_mask"], 1e-4)
    assert torch.equal(tight[None], golden["deform_tight/deforms_mask"])
    near(torch.tanh(moves) * tight, golden["deform_tight/masked_tanh"], 1e-5)
    network.block_2[8].weight *= 40
    near(vertex_offsets(network(features), mask, normals), golden["deform_x40/offsets"], 3e-4)


@torch.no_grad()
def test_geometry_unet_on_the_official_map(shared):
    """Its official input is stored at every other pixel; the map that it gives feeds the vertex network."""
    stored = read(shared, "04_encoding")["unet_input_every_2nd"]
    position = read(shared, "04_encoding")["position_map_x5"]
    golden = read(shared, "03_deformer")
    network = official(shared, geometry_unet(SMALL), "01_unet_geom_weights")
    inputs = torch.cat([golden["deform/texture"], harmonic_encoding(position, dim=1)], dim=1)
    near(inputs[..., ::2, ::2], stored, 1e-4)
    near(network(inputs), golden["deform/latent_map"], 5e-4)


# Section 1 of the description of the release: parameters, and 1e9 multiply-accumulates at full size.
SIZES = {
    "autoencoder": (203, 40_440_328, 124.76),
    "mesh_deformer": (44, 14_782_176, 98.545),
    "mlp_deformer": (17, 491_264, 2.457),
    "unet": (44, 14_780_356, 98.428),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_released_sizes(name):
    tensors, parameters, macs = SIZES[name]
    with torch.device("meta"):
        network = NETWORKS[name](RELEASED)
        inputs = {
            "autoencoder": (torch.empty(1, 3, 256, 256), torch.empty(1, 1, 256, 256)),
            "mlp_deformer": (torch.empty(1, 5023, 58),),
        }.get(name, (torch.empty(1, 47, 256, 256),))
        counter = FlopCounterMode(display=False)
        with counter:
            output = network(*inputs)
    shapes = {"autoencoder": (1, 8, 256, 256), "mesh_deformer": (1, 32, 256, 256), "mlp_deformer": (1, 5023, 3)}
    assert output.shape == shapes.get(name, (1, 4, 256, 256))
    state = network.state_dict()
    assert len(state) == tensors
    assert sum(value.numel() for value in state.values()) == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(macs, rel=2e-4)


def test_convolutions_by_kind():
    with torch.device("meta"):
        convolutions = [
            layer for build in NETWORKS.values() for layer in build(RELEASED).modules() if isinstance(layer, nn.Conv2d)
        ]
    assert sum(isinstance(layer, StandardisedConv) for layer in convolutions) == 76
    assert len(convolutions) == 76 + 26


def test_places_of_layers():
    """What tensor shapes do not tell: which convolutions are standardised, groups of norms, what stands behind what."""
    with torch.device("meta"):
        encoder, network = TextureEncoder(RELEASED), rendering_unet(RELEASED)
    kinds = [type(layer).__name__ for layer in encoder.net[1].main]
    assert kinds == ["GroupNorm", "ReLU", "StandardisedConv"] * 3 + ["GroupNorm", "ReLU", "Conv2d"]
    kinds = [type(layer).__name__ for layer in network.encoder[0][0].main]
    assert kinds == ["StandardisedConv", "GroupNorm", "ReLU"] * 2
    for layer in (*encoder.modules(), *network.modules(), *rendering_unet(SMALL).modules()):
        if isinstance(layer, nn.GroupNorm):
            assert (layer.num_groups, layer.eps) == (min(32, layer.num_channels), 1e-5)
    order = ["Conv2d", *["Bottleneck", "Bottleneck", "MaxPool2d"] * 3, "Bottleneck", "Bottleneck"]
    order += [*["Bottleneck", "Bottleneck", "Upsample"] * 3, "Bottleneck", "Bottleneck", "GroupNorm", "ReLU", "Conv2d"]
    assert [type(layer).__name__ for layer in encoder.net] == order


@torch.no_grad()
def test_skips_come_behind_what_is_up_sampled():
    torch.manual_seed(0)
    network, seen = rendering_unet(SMALL).eval(), {}
    for name in ("encoder.2", "encoder.3", "decoder.0"):
        part = network.get_submodule(name)
        part.register_forward_hook(lambda _, given, output, name=name: seen.update({name: (given[0], output)}))
    network(torch.randn(1, 47, 16, 16))
    given, _ = seen["decoder.0"]
    deep, skip = seen["encoder.3"][1], seen["encoder.2"][1]
    assert torch.equal(given[:, : deep.shape[1]], deep.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert torch.equal(given[:, deep.shape[1] :], skip)
    below = seen["encoder.3"][0]
    assert torch.equal(below, skip.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).amax((3, 5)))


def test_released_keys_and_kinds(shared):
    """Every name, shape and kind of convolution of the released networks."""
    facts = json.loads((shared / "specs/rome_state_dict.json").read_text())
    kinds = facts["conv_kinds"]
    standardised, plain = [], []
    for name, build in NETWORKS.items():
        with torch.device("meta"):
            network = build(RELEASED)
        stored = {key: tuple(row["shape"]) for key, row in facts["rome.pth/core"][name].items()}
        assert {f"{name}.{key}": tuple(value.shape) for key, value in network.state_dict().items()} == stored
        for path, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d):
                (standardised if isinstance(layer, StandardisedConv) else plain).append(f"{name}.{path}.weight")
    assert sorted(standardised) == sorted(kinds["weight_standardised_conv_keys"])
    assert sorted(plain) == sorted(kinds["plain_conv_keys"])


def test_standardised_filters():
    torch.manual_seed(0)
    weight = torch.randn(5, 3, 3, 3, dtype=torch.float64)
    weight[0] *= 1e-5
    filters = standardise(weight).flatten(1)
    torch.testing.assert_close(filters.mean(1), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)
    spread = weight.flatten(1).std(1)
    torch.testing.assert_close(filters.std(1), spread / (spread + 1e-5))
    assert filters[0].std() < 0.6, "the constant is added to the deviation, so that dead filters stay small"


@pytest.mark.parametrize(("build", "channels"), [(rendering_unet, [47]), (TextureEncoder, [3, 1])])
@torch.no_grad()
def test_folding_is_exact(build, channels):
    torch.manual_seed(0)
    network = build(SMALL).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold_standardisation(network)
    assert not any(isinstance(layer, StandardisedConv) for layer in folded.modules())
    inputs = [torch.randn(2, n, 16, 24) for n in channels]
    assert torch.equal(network(*inputs), folded(*inputs))
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items()), "the network itself stays as it was"


def test_a_single_convolution_folds():
    layer = nn.Sequential(StandardisedConv(3, 4, 3))
    assert type(fold_standardisation(layer)[0]) is nn.Conv2d


def test_training_reaches_every_parameter():
    torch.manual_seed(0)
    for name, build in NETWORKS.items():
        network = build(SMALL)
        inputs = {
            "autoencoder": (torch.rand(2, 3, 16, 16), torch.rand(2, 1, 16, 16)),
            "mlp_deformer": (torch.randn(2, 7, 58),),
        }.get(name, (torch.randn(2, 47, 16, 16),))
        network(*inputs).square().mean().backward()
        assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@torch.no_grad()
def test_people_in_a_batch_do_not_mix():
    torch.manual_seed(0)
    network, inputs = rendering_unet(SMALL).eval(), torch.randn(2, 47, 16, 16)
    together = network(inputs)
    for i in range(2):
        near(network(inputs[i : i + 1]), together[i : i + 1], 1e-5)


def test_features_of_vertices():
    """A map that is linear in x and y is read off exactly; the place is stretched by N / (N - 1)."""
    side = 16
    centres = (2 * torch.arange(side) + 1) / side - 1
    latent = torch.stack([centres.expand(side, side), 2 * centres[:, None].expand(side, side)])[None]
    places = torch.tensor([[-0.5, 0.25], [0.3, 0.9]])
    features = vertex_features(latent.expand(3, -1, -1, -1), places, 1)
    assert features.shape == (3, 2, 2 + 6)
    near(features[0, :, :2], places * torch.tensor([1.0, 2.0]), 1e-6)
    stretched = places * side / (side - 1)
    near(features[2, :, 2:], torch.cat([stretched, stretched.sin(), stretched.cos()], dim=1), 1e-6)


def test_a_movable_face():
    face = torch.zeros(8, 8)
    face[:, 4:] = 1
    mask = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    places = torch.tensor([[-0.5, 0.0], [-0.5, 0.3], [0.5, 0.0], [0.5, -0.3]])
    near(with_movable_face(mask, places, face, 0.25), torch.tensor([[1.0], [0.0], [0.25], [0.25]]), 0)


def test_offsets_stay_within_the_normal():
    moves = torch.tensor([[[100.0, -100.0, 0.0], [1.0, 1.0, 1.0]]])
    normals = torch.tensor([[[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]])
    offsets = vertex_offsets(moves, torch.tensor([[1.0], [0.0]]), normals)
    near(offsets, torch.tensor([[[0.6, -0.8, 0.0], [0.0, 0.0, 0.0]]]), 1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 100}, "image_size 100 is not a multiple of 8"),
        ({"img_channels": 24}, "gives 48 channels"),
        ({"n_exp": 0}, "n_exp 0"),
        ({"octaves": 40}, "octaves 40"),
        ({"n_vertices": 0}, "n_vertices 0"),
        ({"mobilenet_width": 0.0}, "mobilenet_width 0.0"),
        ({"img_channels": 16.0}, "should be int"),
        ({"colour": 1}, "unknown model option 'colour'"),
    ],
)
def test_bad_configs_are_refused(changes, words):
    with pytest.raises(BadInput, match=words):
        RomeConfig.from_dict(RELEASED.to_dict() | changes)


def test_configs_survive_json():
    assert RomeConfig.from_dict(json.loads(json.dumps(SMALL.to_dict()))) == SMALL
