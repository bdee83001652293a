"""Losses of ROME's geometry: outlines, smooth offsets, masks and landmarks.

The paper and the released code disagree in places; both forms are here, and the default is what trained the released
weights. All losses are batched, take half precision (and compute in FP32), and are differentiable in their first
argument.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mobile_avatar.errors import BadInput
from mobile_avatar.training.losses import wide

FORMS = ("official", "thesis")
DICE_EPS = 1e-7
FINE = 4  # subdivisions of a pixel where masks grow
CHUNK = 1 << 24  # distances that are held at once, per item of the batch


@dataclass(frozen=True)
class RomeLossWeights:
    """Factors of the losses in the total, as the released training script passes them."""

    hair: float = 10.0
    """Silhouette of hair; the official silhouette loss halves it once more."""
    neck: float = 1.0
    """Silhouette of neck and shoulders, halved likewise."""
    chamfer: float = 0.01
    """Outline points of hair."""
    laplacian: float = 10.0
    """Smoothness of the offsets."""
    segmentation: float = 10.0
    """Dice of the rendered mask."""
    keypoints: float = 1.0
    """Landmarks of the mesh."""
    perceptual: float = 1.0
    """VGG19."""
    identity: float = 0.1
    """Face-recognition features."""
    adversarial: float = 0.1
    """Hinge loss of the generator."""
    feature_matching: float = 1.0
    """Of the discriminator's features."""
    texture: float = 5.0
    """Colours of the neural texture; officially there is none."""
    gaze: float = 1.0
    """Features of a network that reads gaze."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < float("inf"):
                raise BadInput(f"loss weight {name} is {value}; it has to be a number of at least 0")


def mask_points(
    masks: Tensor, generator: torch.Generator | None = None, most: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Places of the pixels that a mask covers, in random order.

    Args:
        masks: (B, 1, H, W), covered where not zero.
        generator: of the order, on the CPU.
        most: (B,) how many of them to keep at most; all without it.

    Returns:
        points (B, M, 2): (2 * column / W - 1, 2 * row / H - 1), the pixel's upper left corner as in the official code;
        and bool (B, M), which of them count. M is the largest number of the batch.
    """
    height, width = masks.shape[-2:]
    covered = masks.flatten(1) != 0
    order = torch.rand(covered.shape, generator=generator).to(masks.device).masked_fill(~covered, 2.0).argsort(1)
    counts = covered.sum(1)
    if most is not None:
        counts = torch.minimum(counts, most)
    order = order[:, : max(1, int(counts.max()))]
    rows, columns = order // width, order % width
    points = torch.stack([2 * columns / width - 1, 2 * rows / height - 1], dim=-1)
    return points, torch.arange(order.shape[1], device=masks.device) < counts[:, None]


def chamfer_distance(
    points: Tensor, valid: Tensor, goals: Tensor, goals_valid: Tensor, form: str = "official"
) -> Tensor:
    """How far two sets of points are apart: each point to the nearest of the other set.

    Args:
        points: (B, N, 2 or 3). valid: bool (B, N), which of them count.
        goals: (B, M, 2 or 3). goals_valid: bool (B, M).
        form: `official`: squared distances, sum of both means; `thesis`: distances, half the sum of both means.

    Returns:
        Scalar, the mean over the batch. An item without points on one side counts as 0.
    """
    _check(form)
    points = wide(points)
    goals = goals.to(points.dtype)
    there = _to_nearest(points, goals, goals_valid)
    back = _to_nearest(goals, points, valid)
    if form == "thesis":
        there, back = (_root(squared) / 2 for squared in (there, back))
    both = valid.any(1) & goals_valid.any(1)
    sides = _mean_where(there, valid & both[:, None]) + _mean_where(back, goals_valid & both[:, None])
    return sides.mean()


def silhouette_chamfer(
    points: Tensor,
    visible: Tensor,
    masks: Tensor,
    form: str = "official",
    equal_counts: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Chamfer distance between projected visible vertices and the pixels of a mask.

    Args:
        points: (B, V, 2) x, y in [-1, 1]. visible: (B, V), not zero where a vertex is seen (and belongs to the part).
        masks: (B, 1, H, W), not zero where the part is.
        equal_counts: use as many vertices (the first) as pixels (random ones), as the official training does.

    Returns:
        Scalar; the derivative goes to `points`.
    """
    valid = visible != 0
    most = valid.sum(1) if equal_counts else None
    goals, goals_valid = mask_points(masks, generator, most)
    if equal_counts:
        valid = valid & (valid.cumsum(1) <= goals_valid.sum(1, keepdim=True))
    return chamfer_distance(points, valid, goals, goals_valid, form)


class Laplacian:
    """Differences of vertices from the mean of their neighbours, for one topology.

    Args:
        faces: int64 (T, 3). vertices: their number.
    """

    def __init__(self, faces: Tensor, vertices: int) -> None:
        edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        self.edges = torch.cat([edges, edges.flip(1)]).long().unique(dim=0).T
        self.counts = torch.bincount(self.edges[0], minlength=vertices).clamp(min=1)[:, None]

    def to(self, device: str | torch.device) -> "Laplacian":
        """Move to a device, in place."""
        self.edges, self.counts = self.edges.to(device), self.counts.to(device)
        return self

    def __call__(self, values: Tensor) -> Tensor:
        """(B, V, C) -> (B, V, C), each vertex minus the mean of its neighbours."""
        target, source = self.edges
        sums = torch.zeros_like(values).index_add(1, target, values[:, source])
        return values - sums / self.counts


def laplacian_loss(offsets: Tensor, laplacian: Laplacian, form: str = "official") -> Tensor:
    """Roughness of offsets (B, V, 3): mean length of the Laplacian; `official` L2, `thesis` L1."""
    _check(form)
    norm = {"official": 2, "thesis": 1}[form]
    return torch.linalg.vector_norm(laplacian(wide(offsets)), ord=norm, dim=-1).mean()


def silhouette_loss(alpha: Tensor, goal: Tensor, form: str = "official", scales: int = 1) -> Tensor:
    """Squared error of rendered silhouettes.

    Args:
        alpha, goal: (B, 1, H, W) in [0, 1].
        form: `official`: half the mean; `thesis`: squared error summed over each picture, mean over the batch.
        scales: of the official form: the mean over so many resolutions, every other pixel each time.
    """
    _check(form)
    alpha, goal = wide(alpha), goal.to(wide(alpha).dtype)
    if form == "thesis":
        return (alpha - goal).square().flatten(1).sum(1).mean()
    steps = [2**scale for scale in range(scales)]
    return sum(0.5 * F.mse_loss(alpha[..., ::s, ::s], goal[..., ::s, ::s]) for s in steps) / scales


def grown(masks: Tensor, radius: float) -> Tensor:
    """Masks that reach further by so many pixels: what a soft silhouette with such a band around it looks like.

    Held against the mask itself, such a silhouette pulls the mesh inwards by about the band's width.

    Args:
        masks: (B, 1, H, W) in [0, 1]; covered from a half on.
        radius: in pixels.

    Returns:
        (B, 1, H, W), the share of each pixel that is covered.
    """
    fine = (F.interpolate(wide(masks), scale_factor=FINE, mode="bilinear", align_corners=False) > 0.5).float()
    reach = math.floor(radius * FINE)
    across = torch.arange(-reach, reach + 1, device=masks.device)
    disc = (across[:, None] ** 2 + across**2 <= (radius * FINE) ** 2).float()
    return F.avg_pool2d((F.conv2d(fine, disc[None, None], padding=reach) > 0.5).float(), FINE)


def dice_loss(logits: Tensor, goal: Tensor, form: str = "official") -> Tensor:
    """One minus twice the overlap over the squared sizes of two masks, mean over the batch.

    Args:
        logits: (B, 1, H, W), before the sigmoid. goal: (B, 1, H, W) in [0, 1].
        form: the official one adds 1e-7 to the denominator.
    """
    _check(form)
    p = torch.sigmoid(wide(logits)).flatten(1)
    t = goal.flatten(1).to(p.dtype)
    sizes = (p * p + t * t).mean(1) + (DICE_EPS if form == "official" else 0)
    return 1 - (2 * (p * t).mean(1) / sizes).mean()


def texture_loss(features: Tensor, mask: Tensor, goal: Tensor) -> Tensor:
    """Mean absolute difference between the first channels of the drawn neural texture and the picture's colours.

    It gives the texture encoder its bearings: what the rendering network tells it about where things lie is faint at
    first (Thies et al., Deferred Neural Rendering, 2019, section 4.3: the first channels hold a mean colour).

    Args:
        features: (B, 3 or more, H, W). mask: (B, 1, H, W) in [0, 1], what counts. goal: (B, 3, H, W) in [0, 1].
    """
    features = wide(features)
    difference = (features[:, :3] - goal.to(features.dtype)).abs().mean(1, keepdim=True) * mask
    return difference.sum() / mask.sum().clamp(min=1)


def mask_cross_entropy(logits: Tensor, goal: Tensor) -> Tensor:
    """The official alternative to `dice_loss`: binary cross entropy, mean over all pixels."""
    logits = wide(logits)
    return F.binary_cross_entropy_with_logits(logits, goal.to(logits.dtype))


def keypoint_weights(device: str | torch.device = "cpu") -> Tensor:
    """(68,) what landmarks count: corners of nose and mouth 3, part of the outline 2, nose and mouth 1.5, others 1."""
    weights = torch.ones(68, device=device)
    for places, weight in (
        ([5, 6, 10, 11], 2.0), (slice(27, 36), 1.5), (slice(48, 68), 1.5), ([30, 31, 35, 48, 54], 3.0),
    ):  # fmt: skip
        weights[places] = weight
    return weights


def keypoint_loss(predicted: Tensor, goal: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean absolute difference of landmarks.

    Args:
        predicted, goal: (B, 68, 2) in [-1, 1].
        weights: (68,); `keypoint_weights` by default.
    """
    weights = keypoint_weights(predicted.device) if weights is None else weights
    predicted = wide(predicted)
    differences = (predicted - goal.to(predicted.dtype)).abs().mean(-1)
    return (differences * weights).sum(-1).mean() / weights.sum()


def _to_nearest(points: Tensor, others: Tensor, valid: Tensor) -> Tensor:
    """Squared distance (B, N) of each point to the nearest valid other; its derivative goes to both."""
    with torch.no_grad():
        step = max(1, CHUNK // max(1, others.shape[1]))
        far = torch.where(valid, 0.0, torch.inf)[:, None]
        # Which one is nearest is searched without a graph: only the chosen pairs carry a derivative.
        chosen = torch.cat(
            [
                (torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist") + far).argmin(-1)
                for part in points.detach().split(step, dim=1)
            ],
            dim=1,
        )
    nearest = others.gather(1, chosen[..., None].expand(-1, -1, others.shape[-1]))
    return (points - nearest).square().sum(-1)


def _mean_where(values: Tensor, valid: Tensor) -> Tensor:
    """Mean (B,) of the valid entries (B, N), 0 where there are none."""
    return torch.where(valid, values, 0.0).sum(1) / valid.sum(1).clamp(min=1)


def _root(squared: Tensor) -> Tensor:
    """Square root with a derivative of 0, not infinity, at 0."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def _check(form: str) -> None:
    if form not in FORMS:
        raise BadInput(f"loss form {form!r} is not one of {', '.join(FORMS)}")
