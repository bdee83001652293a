"""The mesh of one person per frame: everything that never changes is a constant, what remains fits any runtime.

Vertices are those that a GPU draws: where the texture is cut open, a vertex of the head model becomes two with their
own places in the texture, so that one index buffer serves positions and places. The constants are laid out in that
order, so the doubling costs nothing per frame.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.parametric import JAW
from mobile_avatar.rendering.incident_faces import IncidentFaces

TURN = 9  # entries of a rotation matrix
CROSS = [[0, 0, 0], [0, 0, -1], [0, 1, 0], [0, 0, 1], [0, 0, 0], [-1, 0, 0], [0, -1, 0], [1, 0, 0], [0, 0, 0]]
"""These times (x, y, z) are the matrix K of the cross product, row by row."""
TERMS = 10  # of the series in `rotation_series`: exact to float rounding up to an angle of 4


def rotation_series(axis_angle: Tensor) -> Tensor:
    """Axis-angle (n, 3) in radians, at most 4 long -> what the rotation adds to the identity (n, 3, 3).

    Rodrigues' formula a K + b K K, with a and b as polynomials in the squared angle: no sine, no square root and no
    division, which would need a case for zero and some of which mobile runtimes lack or compute roughly. They are
    nested, so that no factor is too small for half precision.
    """
    squared = (axis_angle * axis_angle).sum(1, keepdim=True)
    # a = sin(t) / t = 1 - t^2 / (2 3) (1 - t^2 / (4 5) (..)); 2 b = 2 (1 - cos(t)) / t^2 = 1 - t^2 / (3 4) (1 - ..)
    steps = [[-1 / (2 * k * (2 * k + 1)), -1 / ((2 * k + 1) * (2 * k + 2))] for k in range(1, TERMS)]
    one, factors = squared.new_tensor([[1.0, 1.0]]), squared.new_tensor(steps)
    series = squared * factors[-1:] + one
    for k in reversed(range(TERMS - 2)):
        series = squared * factors[k : k + 1] * series + one
    cross = linear(axis_angle, axis_angle.new_tensor(CROSS), axis_angle.new_zeros(TURN)).view(-1, 3, 3)
    sine, cosine = series[:, :1, None], series[:, 1:, None] * 0.5
    return sine * cross + cosine * (cross @ cross)


def render_vertices(faces: Tensor, uv_faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The vertices that a GPU draws: one per vertex and place in the texture.

    Args:
        faces, uv_faces: (t, 3) int64, the same triangles as numbers of vertices and of texture vertices.

    Returns:
        vertex (w,) and place (w,): their numbers among vertices and texture vertices, ascending; corners (t, 3) int64.
    """
    pairs = torch.stack((faces.flatten(), uv_faces.flatten()), dim=1)
    unique, corners = pairs.unique(dim=0, return_inverse=True)
    return unique[:, 0], unique[:, 1], corners.view_as(faces)


class AvatarMesh(nn.Module):
    """One person's mesh, w drawn vertices; its buffers are what an avatar file stores.

    Equals `Rome.mesh` of the linear modes, in drawn vertices. Only the jaw bends, as ROME predicts no other joint, so
    skinning is one matrix; the joints move with the expression by a linear map of their own.

    Args:
        sizes: w, number of triangles and of expression coefficients; the buffers are zero until they are loaded.
    """

    def __init__(self, vertices: int, triangles: int, expressions: int) -> None:
        super().__init__()
        self.expressions = expressions
        shapes = {
            "neutral": (vertices, 3),  # template and shape
            "offsets": (vertices, 3),  # of hair and shoulders, added after posing
            "blend": (3 * vertices, expressions + TURN),  # expressions, then corrections of the jaw
            "jaw_weight": (vertices, 1),
            "joints": (2, 3),  # root and jaw of the neutral head
            "joint_blend": (6, expressions),  # how expressions move them
            "uv": (vertices, 2),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("vertex", torch.zeros(vertices, dtype=torch.int32))
        self.register_buffer("corners", torch.zeros(triangles, 3, dtype=torch.int32))
        self.incident: IncidentFaces | None = None
        self.scale = 1.0

    @classmethod
    def of(cls, head: HeadModel, shape: Tensor, offsets: Tensor) -> "AvatarMesh":
        """The mesh of a person.

        Args:
            head: the head model.
            shape: (1, n_shape) coefficients. offsets: (1, v, 3) of the linear basis.
        """
        vertex, place, corners = render_vertices(head.faces, head.uv_faces)
        expressions = head.expression_basis.shape[2]
        mesh = cls(len(vertex), len(corners), expressions)
        neutral = head.template + (head.shape_basis @ shape[0])
        first = TURN * (JAW - 1)
        corrections = head.pose_basis[:, :, first : first + TURN]
        blend = torch.cat((head.expression_basis, corrections), dim=2)[vertex]
        both = head.joint_regressor[[0, JAW]]
        moves = torch.einsum("jv,vce->ejc", both, head.expression_basis)
        jaw = [number for number in range(len(head.parents)) if JAW in _chain(head.parents, number)]
        state = {
            "neutral": neutral[vertex],
            "offsets": offsets[0][vertex],
            "blend": blend.flatten(0, 1),
            "jaw_weight": head.skin_weights[vertex][:, jaw].sum(1, keepdim=True),
            "joints": both @ neutral,
            "joint_blend": moves.flatten(1).T.contiguous(),
            "uv": head.uv[place],
            "vertex": vertex.to(torch.int32),
            "corners": corners.to(torch.int32),
        }
        mesh.load_state_dict(state)
        return mesh.ready()

    def ready(self) -> "AvatarMesh":
        """Itself, after buffers were loaded: tables that follow from the faces."""
        self.incident = IncidentFaces(self.corners.long(), self.vertex.long())
        corner = self.neutral[self.corners.long()]
        edge = (corner[:, 0] - corner[:, 1]).norm(dim=1).median().clamp(min=1e-6)
        # A power of two, so that nothing is rounded; edges are then about as long as the unit.
        self.scale = 2.0 ** round(math.log2(1 / float(edge)))
        return self.eval().requires_grad_(False)

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of one frame (1, e + 9): expression, rotations of head and jaw, camera.

        Returns:
            positions (1, w, 3): x and y in the picture [-1, 1], y down; z, smaller is nearer, around 0.
            normals (1, w, 3) in head space, unit.
        """
        e = self.expressions
        expression, camera = codes[:, :e], codes[:, None, e + 6 :]
        turns = rotation_series(codes[:, e : e + 6].reshape(2, 3))
        whole, jaw = turns[:1], turns[1:]
        drivers = torch.cat((expression, jaw.reshape(1, TURN)), dim=1)
        posed = linear(drivers, self.blend, self.neutral.flatten()).view(1, -1, 3)
        joints = linear(expression, self.joint_blend, self.joints.flatten()).view(1, 2, 3)
        posed = posed + self.jaw_weight * ((posed - joints[:, 1:]) @ jaw.transpose(1, 2))
        vertices = posed + self.offsets
        turned = vertices + (vertices - joints[:, :1]) @ whole.transpose(1, 2)
        # The picture's y goes down and its z away from the viewer; the camera moves x and y only.
        shift = torch.cat((camera[..., 1:], torch.zeros_like(camera[..., :1])), dim=2)
        positions = (turned + shift) * (camera[..., :1] * camera.new_tensor([1.0, -1.0, -1.0]))
        return positions, self.incident(vertices, self.scale)


def _chain(parents: tuple[int, ...], joint: int) -> list[int]:
    """A joint and all above it."""
    return [] if joint < 0 else [joint, *_chain(parents, parents[joint])]
