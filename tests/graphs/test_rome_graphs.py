"""The three deployment graphs of a ROME avatar: contracts, work, layouts, operators."""

import pytest
import torch

from mobile_avatar.graphs.onnx_graph import count, simplify, to_onnx
from mobile_avatar.graphs.rome import rome_graphs, rome_specs
from mobile_avatar.models.rome.avatar import RomeAvatar
from mobile_avatar.models.rome.avatar_mesh import AvatarMesh
from mobile_avatar.models.rome.batch_norms import fold_batch_norms
from mobile_avatar.models.rome.compact_renderer import CompactConfig, CompactRenderer
from mobile_avatar.models.rome.mobilenet_v2 import MobileNetV2
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from tests.rome_avatars import ENCODER_SIZE, small_avatar, source_codes

DATA_DEPENDENT = {"Shape", "Loop", "If", "NonZero", "ScatterElements", "ScatterND", "GroupNormalization", "Sin", "Cos"}


@pytest.fixture(scope="module")
def small() -> RomeAvatar:
    return small_avatar()


def test_a_frame_costs_at_most_three_and_a_half_gmac() -> None:
    """At full size: the default head, MobileNetV2 and the default renderer."""
    head = synthetic_head()
    codes = source_codes(head)
    avatar = RomeAvatar(
        fold_batch_norms(MobileNetV2(len(codes))),
        AvatarMesh.of(head, torch.zeros(1, head.shape_basis.shape[2]), torch.zeros(1, len(head.template), 3)),
        torch.zeros(1, 8, 256, 256),
        CompactRenderer.folded(CompactConfig()),
        codes,
        256,
    )
    macs = {graph.name: count(to_onnx(graph.module, graph.spec))[1] for graph in rome_graphs(avatar, "NCHW")}
    assert macs == {"encoder": 391_208_192, "mesh": 471_156, "renderer": 2_570_059_776}
    assert sum(macs.values()) <= 3.5e9


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_graphs_keep_their_contracts(small: RomeAvatar, layout: str) -> None:
    frame = small.render(small.source_codes[None])
    image = torch.rand(1, 3, ENCODER_SIZE, ENCODER_SIZE)
    arrange = (lambda x: x.permute(0, 2, 3, 1)) if layout == "NHWC" else lambda x: x
    codes, features = small.source_codes[None], frame.features
    cases = {
        "encoder": (arrange(image), (small.encoder(image),)),
        "mesh": (codes, (frame.positions, frame.normals)),
        "renderer": (arrange(features), (arrange(frame.rgba),)),
    }
    for graph in rome_graphs(small, layout):
        given, expected = cases[graph.name]
        (source,) = graph.spec.inputs
        assert tuple(given.shape) == source.shape
        found = graph.module(given)
        found = found if isinstance(found, tuple) else (found,)
        for tensor, value, wanted in zip(graph.spec.outputs, found, expected, strict=True):
            assert tuple(value.shape) == tensor.shape, tensor.name
            torch.testing.assert_close(value, wanted)
            assert tensor.range[0] <= value.min() <= value.max() <= tensor.range[1], tensor.name
    assert rome_specs(small.config, layout)["renderer"].inputs[0].range[1] == small.texture.abs().max()


def test_nothing_in_the_graphs_depends_on_data(small: RomeAvatar) -> None:
    for graph in rome_graphs(small, "NCHW"):
        model, note = simplify(to_onnx(graph.module, graph.spec))
        assert note is None
        kinds = {node.op_type for node in model.graph.node}
        assert not kinds & DATA_DEPENDENT, graph.name
        assert ("Gather" in kinds) == (graph.name == "mesh")
