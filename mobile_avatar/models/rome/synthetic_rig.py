"""The default parametric head: the synthetic heads of this package in the form of FLAME, made when first asked for.

The synthetic people are linear in their shape and expression by construction, so the bases are their displacement
fields themselves, read off the geometry: exact, named, and the same on every machine, where a principal component
analysis of samples would be none of that. It takes a fraction of a second, so no file is shipped.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from mobile_avatar.data.synthetic.expression import EXPRESSION_FIELDS, Frames, neutral_frames
from mobile_avatar.data.synthetic.features import keypoint_charts
from mobile_avatar.data.synthetic.geometry import (
    BUST_SHAPE,
    EAR_SHAPE,
    HINGE,
    JAW_ANGLE,
    PIVOT,
    bust_sheet,
    ear_sheet,
    head_surface,
    rotate,
    sample_surface,
    surface_fields,
)
from mobile_avatar.data.synthetic.identity import SHAPE_FIELDS, Identity, draw_identities
from mobile_avatar.data.synthetic.template import CENTRE
from mobile_avatar.models.rome.head_model import CONTOUR_ROWS, HeadModel, largest_uv, mask_of, with_ring
from mobile_avatar.models.rome.parametric import JAW, rotation_matrices
from mobile_avatar.models.rome.synthetic_layout import RigLayout, rig_layout

UNIT = 0.045  # metres of the synthetic heads' unit, half the distance of the outer eye corners
AXES = (1.0, -1.0, 1.0)  # theirs have y down
PARENTS = (-1, 0, 1, 1, 1)
ROOT = (0.0, 2.9, PIVOT[2])
EYE_CHART, EYE_DEPTH = (0.489, -0.16), 0.05
# What a coefficient of 1 is, about one standard deviation of the synthetic people: of the shape fields, of the neck's
# width and the shoulders' height, and of the expression fields.
SHAPE_SCALE, NECK_SCALE, EXPRESSION_SCALE = 0.72, 0.58, 0.4
SHAPE_NAMES = (*(name for name, *_ in SHAPE_FIELDS), "neck_width", "shoulder_height")
EXPRESSION_NAMES = tuple(name for name, *_ in EXPRESSION_FIELDS)
# Lips, eyes and brows are painted, not shaped: landmarks lie where those of an average face are.
AVERAGE_LIPS, AVERAGE_EYES, AVERAGE_BROWS = (1.0, 1.0), (0.475, 0.185, -0.01), (1.0, 0.0, 0.0)
OPENINGS = (0.25, 0.5, 0.75, 1.0)  # of the jaw, to which its corrections are fitted


# Not in inference mode, whoever asks first: the cached arrays also serve training.
@lru_cache(maxsize=1)
@torch.inference_mode(False)
@torch.no_grad()
def synthetic_head() -> HeadModel:
    """The parametric head of the synthetic people: 4,913 vertices, 29 shape and 16 expression coefficients, 5 joints.

    Lengths in metres, origin in the middle of the skull. Eyes are painted, so their joints move nothing.
    """
    plan = rig_layout()
    shapes = len(SHAPE_FIELDS)
    people = _average(1 + shapes + 4)
    shape, neck = people.shape.clone(), people.neck.clone()
    shape[1 : 1 + shapes] = torch.eye(shapes) * SHAPE_SCALE
    # The shoulders' height is not linear: central differences.
    for row, (axis, sign) in enumerate(((0, 1), (0, -1), (1, 1), (1, -1)), start=1 + shapes):
        neck[row, axis] = sign * NECK_SCALE
    points = rig_points(replace(people, shape=shape, neck=neck), neutral_frames(len(shape)))
    template = points[0]
    differences = [*(points[1 : 1 + shapes] - template), *(points[1 + shapes :: 2] - points[2 + shapes :: 2]) / 2]
    moods = len(EXPRESSION_NAMES)
    frames = replace(neutral_frames(moods), amplitudes=torch.eye(moods) * EXPRESSION_SCALE)
    expressions = rig_points(_average(moods), frames) - template

    weights = _skin_weights(plan)
    joints = _joints()
    triangles, spots = _landmarks(plan)
    v = len(template)
    movable = torch.cat((plan.hair, plan.neck))
    return HeadModel(
        template=template,
        shape_basis=torch.stack(differences, dim=-1),
        expression_basis=expressions.permute(1, 2, 0).contiguous(),
        pose_basis=_pose_basis(template, weights, joints),
        joint_regressor=_regressor(template, joints, plan),
        skin_weights=weights,
        parents=PARENTS,
        faces=plan.faces,
        uv_faces=plan.uv_faces,
        uv=plan.uv,
        vertex_uv=largest_uv(plan.faces, plan.uv_faces, plan.uv, v),
        landmark_faces=triangles[17:],
        landmark_weights=spots[17:],
        # The contour of the synthetic people does not slide: their keypoints are fixed spots of the surface.
        contour_faces=triangles[:17].expand(CONTOUR_ROWS, -1).contiguous(),
        contour_weights=spots[:17].expand(CONTOUR_ROWS, -1, -1).contiguous(),
        hair=plan.hair,
        hair_edge=with_ring(plan.hair, plan.faces),
        neck=plan.neck,
        neck_edge=with_ring(plan.neck, plan.faces),
        deforms_mask=mask_of(movable[~torch.isin(movable, plan.frozen)], v),
        source="the synthetic head",
    )


@dataclass(frozen=True)
class SyntheticCodes:
    """Coefficients of the synthetic head for n pictures: shape (n, 29), expression (n, 16), rotations (n, 5, 3, 3)."""

    shape: Tensor
    expression: Tensor
    rotations: Tensor


def synthetic_codes(identity: Identity, frames: Frames) -> SyntheticCodes:
    """The true coefficients of synthetic people in their frames, n rows each.

    The shoulders' sideways shift has no coefficient; hair, glasses and all that is painted are not the head's.
    """
    shape = torch.cat((identity.shape / SHAPE_SCALE, identity.neck[:, :2] / NECK_SCALE), dim=1)
    body = torch.stack((frames.body[:, 0], *(torch.zeros_like(frames.body[:, 0]),) * 2), dim=1)
    root, head = _turns(body), _turns(frames.pose)
    jaw = torch.zeros_like(frames.pose)
    jaw[:, 0] = frames.jaw * JAW_ANGLE
    rest = torch.eye(3, device=shape.device).expand_as(root)
    rotations = torch.stack((root, root.transpose(1, 2) @ head, rotation_matrices(jaw), rest, rest), dim=1)
    return SyntheticCodes(shape, frames.amplitudes / EXPRESSION_SCALE, rotations)


def rig_points(identity: Identity, frames: Frames) -> Tensor:
    """The rig's vertices (n, v, 3) as n synthetic people have them in their frames: read off their surfaces, not
    computed from coefficients; in the rig's unit and axes. For ears that long hair does not push aside: bald people."""
    plan = rig_layout()
    n = len(identity.shape)
    rest, moved = head_surface(identity, frames)
    head = sample_surface(moved, plan.head_chart.expand(n, -1, -1))
    ears = [ear_sheet(identity, rest, side)[0][:, plan.ear_rows, : EAR_SHAPE[1] - 1].flatten(1, 2) for side in (-1, 1)]
    head, *ears = (rotate(points, frames.pose) for points in (head, *ears))
    return to_rig(torch.cat((head, _sample_bust(bust_sheet(identity, frames)[0], plan.bust_chart), *ears), dim=1))


def to_rig(points: Tensor) -> Tensor:
    """Head units of the synthetic people (..., 3) -> the rig's metres."""
    return (points - points.new_tensor(CENTRE)) * points.new_tensor(AXES) * UNIT


def _average(n: int) -> Identity:
    """n times the synthetic person without any deviation, bald."""
    one = draw_identities([0], 0).take(torch.zeros(n, dtype=torch.int64))
    return replace(one, **{name: torch.zeros_like(getattr(one, name)) for name in ("shape", "neck", "style")})


def _sample_bust(sheet: Tensor, chart: Tensor) -> Tensor:
    """Points (n, b, 3) of busts (n, rows, columns, 3) at (angle, height), bilinear."""
    rows, columns = BUST_SHAPE
    column = (chart[:, 0] + torch.pi) / (2 * torch.pi) * (columns - 1)
    row = (chart[:, 1] - 1.2) / 4.3 * (rows - 1)
    c, r = column.long().clamp(0, columns - 2), row.long().clamp(0, rows - 2)
    x, y = (column - c)[:, None], (row - r)[:, None]
    top = sheet[:, r, c] * (1 - x) + sheet[:, r, c + 1] * x
    bottom = sheet[:, r + 1, c] * (1 - x) + sheet[:, r + 1, c + 1] * x
    return top * (1 - y) + bottom * y


def _turns(pose: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3) in the rig's axes of yaw, pitch and roll (n, 3)."""
    pivot, axes = pose.new_tensor(PIVOT), pose.new_tensor(AXES)
    turned = rotate((torch.eye(3, device=pose.device) + pivot).expand(len(pose), 3, 3), pose) - pivot
    return turned.transpose(1, 2) * axes[:, None] * axes


def _skin_weights(plan: RigLayout) -> Tensor:
    """(v, 5): the head follows jaw and neck, the bust neck and root, the ears the neck."""
    jaw_field = surface_fields("cpu")[2]
    jaw = sample_surface(jaw_field[None, :, :, None], plan.head_chart[None])[0, :, 0] * plan.fading
    t = ((plan.bust_chart[:, 1] - 3.0) / (1.6 - 3.0)).clamp(0, 1)
    follow = t * t * (3 - 2 * t)
    weights = torch.zeros(int(plan.faces.max()) + 1, len(PARENTS))
    weights[:, 1] = 1
    h, b = len(jaw), len(follow)
    weights[:h, JAW], weights[:h, 1] = jaw, 1 - jaw
    weights[h : h + b, 0], weights[h : h + b, 1] = 1 - follow, follow
    return weights


def _joints() -> Tensor:
    """(5, 3) where the joints of the average person are."""
    eye = sample_surface(head_surface(_average(1), neutral_frames(1))[0], torch.tensor([[EYE_CHART]]))[0, 0]
    eye = eye - torch.tensor([0.0, 0.0, EYE_DEPTH])
    mirrored = eye * torch.tensor([-1.0, 1.0, 1.0])
    return to_rig(torch.stack((torch.tensor(ROOT), torch.tensor(PIVOT), torch.tensor((0.0, *HINGE)), mirrored, eye)))


def _regressor(template: Tensor, joints: Tensor, plan: RigLayout) -> Tensor:
    """(5, v) the smallest weights that sum to 1 and give the joints, each from the vertices around it."""
    body = torch.zeros(len(template), dtype=torch.bool)
    body[: len(plan.head_chart) + len(plan.bust_chart)] = True
    result = torch.zeros(len(joints), len(template), dtype=torch.float64)
    for row, joint in enumerate(joints):
        offset = template - joint
        near = offset.norm(dim=1) < 0.8 * UNIT if row > JAW else offset[:, 1].abs() < 0.35 * UNIT
        chosen = (near & body).nonzero()[:, 0]
        system = torch.cat((template[chosen].T, torch.ones(1, len(chosen)))).double()
        wanted = torch.cat((joint, torch.ones(1))).double()
        result[row, chosen] = system.T @ torch.linalg.solve(system @ system.T, wanted)
    return result.float()


def _pose_basis(template: Tensor, weights: Tensor, joints: Tensor) -> Tensor:
    """(v, 3, 36): what the synthetic jaw does beyond skinning, as a linear function of its rotation.

    Their surface turns by a share of the jaw's angle, where skinning shortens the way, and the inside of the mouth
    goes back as the mouth opens. Both are fitted in the sine and the cosine of the angle.
    """
    openings = torch.tensor(OPENINGS)
    n = len(openings)
    target = rig_points(_average(n), replace(neutral_frames(n), jaw=openings))
    angles = openings * JAW_ANGLE
    turns = rotation_matrices(torch.stack((angles, 0 * angles, 0 * angles), dim=1))
    jaw, w = joints[JAW], weights[:, JAW, None, None]
    # Skinning maps p to A p + s; find the p that it would have to be given.
    identity = torch.eye(3)
    blended = identity + w * (turns - identity)[:, None]
    shift = w[..., 0] * (jaw - turns @ jaw)[:, None]
    missing = torch.linalg.solve(blended, (target - shift)[..., None])[..., 0] - template
    head = weights[:, JAW, None] > 0
    features = torch.stack((torch.sin(angles), torch.cos(angles) - 1), dim=1)
    fitted = torch.linalg.lstsq(features.double(), missing.double().flatten(1)).solution.float()
    sine, cosine = (part.view_as(template) * head for part in fitted)
    basis = torch.zeros(*template.shape, 9 * (len(PARENTS) - 1))
    first = 9 * (JAW - 1)
    # The sine stands at (2, 1) and negative at (1, 2) of the rotation, the cosine at (1, 1) and (2, 2).
    for place, part in ((7, sine), (5, -sine), (4, cosine), (8, cosine)):
        basis[..., first + place] = part / 2
    return basis


def _landmarks(plan: RigLayout) -> tuple[Tensor, Tensor]:
    """Triangles (68,) of the keypoints and barycentric weights (68, 3), found in the chart of the head."""
    lips, eyes, brows = (torch.tensor([values]) for values in (AVERAGE_LIPS, AVERAGE_EYES, AVERAGE_BROWS))
    wanted = keypoint_charts(lips, eyes, brows, torch.zeros(1, 2))[0].double()
    h = len(plan.head_chart)
    chart = plan.head_chart.double()
    known = ((plan.faces > 0) & (plan.faces < h)).all(1)  # not the crown, which has no azimuth
    corners = chart[plan.faces.clamp(max=h - 1)]
    known &= corners[..., 0].amax(1) - corners[..., 0].amin(1) < torch.pi  # nor across the back
    first, second, third = corners.unbind(1)
    base = torch.stack((second - first, third - first), dim=-1)
    base[~known] = torch.eye(2, dtype=torch.float64)
    inside = torch.linalg.solve(base, (wanted[:, None] - first)[..., None])[..., 0]
    spots = torch.cat((1 - inside.sum(-1, keepdim=True), inside), dim=-1)
    depth = torch.where(known, spots.amin(-1), -torch.inf)
    triangles = depth.argmax(1)
    return triangles, spots[torch.arange(len(wanted)), triangles].float()
