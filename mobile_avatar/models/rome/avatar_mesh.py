"""The mesh of one person per frame: everything that never changes is a constant, what remains fits any runtime.

Vertices are those that a GPU draws: where the texture is cut open, a vertex of the head model becomes two with their
own places in the texture, so that one index buffer serves positions and places. The constants are laid out in that
order, so the doubling costs nothing per frame.
"""

import math

import torch
from torch import Tensor, nn

from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.parametric import JAW
from mobile_avatar.rendering.incident_faces import IncidentFaces

TURN = 9  # entries of a rotation matrix
TERMS = 10  # of the series in `rotation_series`: exact to float rounding up to an angle of 4


def rotation_series(axis_angle: Tensor) -> Tensor:
    """Axis-angle (n, 3) in radians, at most 4 long -> what the rotation adds to the identity (n, 3, 3).

    Rodrigues' formula as two polynomials in the squared angle: no sine, no square root and no division, which would
    need a case for zero and some of which mobile runtimes lack or compute roughly.
    """
    x, y, z = axis_angle.split(1, dim=1)
    xx, yy, zz = x * x, y * y, z * z
    squared = xx + yy + zz
    sine, cosine = _series(squared, 1), _series(squared, 2)
    xy, xz, yz = cosine * (x * y), cosine * (x * z), cosine * (y * z)
    x, y, z = sine * x, sine * y, sine * z
    entries = (
        -cosine * (yy + zz), xy - z, xz + y,
        xy + z, -cosine * (xx + zz), yz - x,
        xz - y, yz + x, -cosine * (xx + yy),
    )  # fmt: skip
    return torch.cat(entries, dim=1).view(-1, 3, 3)


def _series(squared: Tensor, start: int) -> Tensor:
    """Sum of (-t)^k / (2k + start)!: sin(a) / a for 1 and (1 - cos(a)) / a^2 for 2, t the squared angle."""
    value = torch.full_like(squared, 1 / math.factorial(2 * TERMS - 2 + start))
    for k in reversed(range(TERMS - 1)):
        value = 1 / math.factorial(2 * k + start) - value * squared
    return value


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
            "blend": (expressions + TURN, 3 * vertices),  # expressions, then corrections of the jaw
            "jaw_weight": (vertices, 1),
            "joints": (2, 3),  # root and jaw of the neutral head
            "joint_blend": (expressions, 6),  # how expressions move them
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
            "blend": blend.flatten(0, 1).T.contiguous(),
            "jaw_weight": head.skin_weights[vertex][:, jaw].sum(1, keepdim=True),
            "joints": both @ neutral,
            "joint_blend": moves.flatten(1),
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
        expression, whole, jaw, camera = codes.split((self.expressions, 3, 3, 3), dim=1)
        bend = rotation_series(jaw)
        drivers = torch.cat((expression, bend.view(1, TURN)), dim=1)
        posed = self.neutral + (drivers @ self.blend).view(1, -1, 3)
        root, hinge = (self.joints.view(1, 6) + expression @ self.joint_blend).view(1, 2, 3).split(1, dim=1)
        posed = posed + self.jaw_weight * ((posed - hinge) @ bend.transpose(1, 2))
        vertices = posed + self.offsets
        turned = vertices + (vertices - root) @ rotation_series(whole).transpose(1, 2)
        scale, shift = camera.view(1, 1, 3).split((1, 2), dim=2)
        x, y, z = turned.split(1, dim=2)
        right, up = shift.split(1, dim=2)
        positions = torch.cat((scale * (x + right), -scale * (y + up), -scale * z), dim=2)
        return positions, self.incident(vertices, self.scale)


def _chain(parents: tuple[int, ...], joint: int) -> list[int]:
    """A joint and all above it."""
    return [] if joint < 0 else [joint, *_chain(parents, parents[joint])]
