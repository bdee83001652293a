"""Training of the mesh avatar: all networks of ROME's full mode, from single pictures with masks.

No loss sees a true mesh. What moves vertices is the outline of the head and of the whole person; the pictures train the
neural texture and what makes pictures of it.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from mobile_avatar.keypoints.landmark_image import draw_landmarks_batched
from mobile_avatar.models.bilayer.config import PRESETS
from mobile_avatar.models.bilayer.discriminator import Discriminator
from mobile_avatar.models.rome.camera import project, turn
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.model import FRONT, Frame, Mesh, Rome
from mobile_avatar.models.rome.networks import CORE, RomeNetworks
from mobile_avatar.models.rome.synthetic_rig import synthetic_head
from mobile_avatar.models.rome.vertex_mlp import VertexMlp
from mobile_avatar.models.rome.weights import save_weights
from mobile_avatar.rendering.soft_silhouette import BLUR_RADIUS, SIGMA, near_faces
from mobile_avatar.training.adversarial import adversarial_losses, make_discriminator
from mobile_avatar.training.base import prepare_networks
from mobile_avatar.training.batches import Batches
from mobile_avatar.training.distributed import is_first
from mobile_avatar.training.face_identity import IdentityLoss
from mobile_avatar.training.losses import structural_loss
from mobile_avatar.training.perceptual import PerceptualLoss, load_perceptual
from mobile_avatar.training.rome_heads import RomeClips, open_pool, unseen_clips
from mobile_avatar.training.rome_losses import (
    Laplacian,
    RomeLossWeights,
    dice_loss,
    grown,
    keypoint_loss,
    laplacian_loss,
    silhouette_chamfer,
    silhouette_loss,
    texture_loss,
)
from mobile_avatar.training.rome_options import RomeTrainOptions, preset_config
from mobile_avatar.training.rome_person import draw, photo_person, pose_mesh
from mobile_avatar.training.rome_sheet import SHEET_FRAMES, SHEET_PEOPLE, write_rome_sheet
from mobile_avatar.training.run import Run
from mobile_avatar.training.step import Step, trained

OFFICIAL_SIZE = 256  # of the pictures that the constants of the silhouette were chosen for
CHAMFER_POINTS = 300  # of each side, about: all of them would take four fifths of the time
SMALL_START = 0.1  # of the last layer that moves vertices: hair that starts as a tangle stays one
VERTEX_RATE = 0.2
"""Factor on the learning rate of the network that moves vertices: at the full one the pull of the Laplacian towards no
offsets at all is faster than outlines, and its last ReLUs die."""
LAPLACIAN = 3.0
"""Its weight here, a third of the official one: heads are seen in fewer frames, and hair must get its volume."""
HALF_PIXEL = 0.5
"""Masks grow by the silhouette's band and by this: a pixel outside pulls harder than one inside."""
WEIGHTS_FILE = "weights.safetensors"
SURE = 1e-6  # of masks: further from 0 and 1 their logits have no gradient


class RomeObjective:
    """Losses of the full mode: each frame of a person is drawn with the texture of the first and compared with itself.

    Args:
        model: in the full mode.
        head: its head model.
        judge: the discriminator, if there is one.
        perceptual: VGG19, or nothing for `structural_loss` in its place.
        identity: if there is a network that knows faces.
        weights: of the losses; the released ones with a smaller Laplacian by default.
        pictures_every: steps of which one judges pictures as well; the others, far cheaper, judge meshes alone.
    """

    def __init__(
        self,
        model: Rome,
        head: HeadModel,
        judge: Discriminator | None = None,
        perceptual: PerceptualLoss | None = None,
        identity: IdentityLoss | None = None,
        weights: RomeLossWeights | None = None,
        pictures_every: int = 1,
    ) -> None:
        self.model, self.judge, self.perceptual, self.identity = model, judge, perceptual, identity
        self.weights = weights or RomeLossWeights(laplacian=LAPLACIAN)
        self.pictures_every = pictures_every
        device = model.faces.device
        self.laplacian = Laplacian(model.faces, model.config.n_vertices).to(device)
        neck = torch.zeros(model.config.n_vertices, dtype=torch.bool, device=device)
        neck[head.neck.to(device)] = True
        self.neck = neck[:, None]
        self.hair = (model.deforms_mask > 0) & ~self.neck
        self.head_faces = model.faces[~neck[model.faces].any(1)]

    def __call__(self, clips: RomeClips, step: int) -> dict[str, Tensor]:
        """Named weighted losses of a batch, and their `total`."""
        person = photo_person(self.model, clips)
        outlines = clips.judged()
        losses = self.geometry(pose_mesh(self.model, person, outlines), outlines)
        if (step + 1) % self.pictures_every == 0:  # so that rows of metrics.jsonl have them
            losses |= self.pictures(draw(self.model, clips, person), clips)
        weighted = {name: getattr(self.weights, WEIGHT_OF.get(name, name)) * loss for name, loss in losses.items()}
        return weighted | {"total": sum(weighted.values())}

    def geometry(self, mesh: Mesh, clips: RomeClips) -> dict[str, Tensor]:
        """What the moved vertices are judged by: outlines, smoothness, landmarks.

        Head and whole person each have an outline of their own. As officially each moves its own region alone: the
        other's vertices are held.
        """
        size, count = clips.images.shape[-1], self.model.config.n_vertices
        front = mesh.projected + mesh.projected.new_tensor([0, 0, FRONT])
        # Small pictures need a wider band around the outline, or too few of their pixels would have a gradient.
        zoom = OFFICIAL_SIZE / size
        head_mask = clips.head_masks.flatten(0, 1)
        head_goal, goal = (grown(part, band_in_pixels(size)) for part in (head_mask, clips.masks.flatten(0, 1)))
        near = near_faces(torch.where(self.neck, front.detach(), front), self.head_faces, size, BLUR_RADIUS * zoom)
        held = torch.where(self.hair, front.detach(), front)
        whole = near_faces(held, self.model.faces, size, BLUR_RADIUS * zoom)
        seen = near.visibility(self.head_faces, count)
        chosen = torch.rand(seen.shape).to(seen.device) * seen.sum(1, keepdim=True) < CHAMFER_POINTS
        return {
            "hair": silhouette_loss(near.alpha(SIGMA * zoom)[:, None], head_goal),
            "neck": silhouette_loss(whole.alpha(SIGMA * zoom)[:, None], goal),
            "chamfer": silhouette_chamfer(mesh.projected[..., :2], seen & chosen, head_mask),
            "laplacian": laplacian_loss(mesh.offsets, self.laplacian),
            "keypoints": keypoint_loss(self.bare_landmarks(mesh, clips), clips.keypoints.flatten(0, 1)),
        }

    def bare_landmarks(self, mesh: Mesh, clips: RomeClips) -> Tensor:
        """Landmarks (n, 68, 2) of the head without offsets: they judge the codes, and hair must not follow them.

        With given codes that is a constant; it falls where a network that reads codes is in training.
        """
        posed = mesh.posed
        points = self.model.head.landmarks(posed.vertices, posed.rotation)
        return project(turn(points, posed.rotation, posed.root), clips.codes().camera)[..., :2]

    def pictures(self, frame: Frame, clips: RomeClips) -> dict[str, Tensor]:
        """What the rendered frames are judged by; both sides stand on the same random colour, cut out alike."""
        goal, goal_mask = clips.images.flatten(0, 1), clips.masks.flatten(0, 1)
        logits = torch.logit(frame.mask, SURE)
        colour = torch.rand(len(goal), 3, 1, 1).to(goal.device)
        mask = frame.mask.detach()
        image, goal = (2 * (colour + mask * (picture - colour)) - 1 for picture in (frame.image, goal))
        compare = self.perceptual or structural_loss
        losses = {
            "segmentation": dice_loss(logits, goal_mask),
            "perceptual": compare(image, goal),
            "texture": texture_loss(frame.features, frame.maps.mask * goal_mask, clips.images.flatten(0, 1)),
        }
        keypoints = clips.keypoints.flatten(0, 1)
        if self.identity is not None:
            losses["identity"] = self.identity(image, goal, keypoints)
        if self.judge is not None:
            landmarks = draw_landmarks_batched(keypoints.flatten(1), goal.shape[-1])
            losses |= adversarial_losses(self.judge, image, goal, landmarks)
        return losses


def band_in_pixels(size: int) -> float:
    """By how much masks of `size` pixels grow to be held against soft silhouettes, see `grown`."""
    return math.sqrt(BLUR_RADIUS * OFFICIAL_SIZE / size) * size / 2 + HALF_PIXEL


WEIGHT_OF = {"matching": "feature_matching", "discriminator": "adversarial"}
"""Names of weights that are not those of their losses."""


def train_rome(
    options: RomeTrainOptions, folder: Path, resume: bool, start: RomeNetworks | None = None, earlier: str = ""
) -> RomeNetworks:
    """Train all networks of the full mode; returns the averaged ones in eval mode.

    `weights.safetensors` in the folder holds the averaged networks from the first contact sheet on.

    Args:
        options: see RomeTrainOptions; what is left open is resolved.
        folder: of the run.
        resume: go on from the folder's checkpoint if there is one.
        start: earlier networks to go on from instead of random weights.
        earlier: what they were trained on.

    Raises:
        BadInput: options, data or folder do not fit; CheckFailed: the numbers became NaN or Inf.
    """
    options = options.resolved()
    torch.manual_seed(options.seed)
    head = synthetic_head()
    networks = start or _fresh(options, head)
    config = networks.config
    model = Rome(networks.train().requires_grad_(True), head).to(options.device)
    judge = None
    if options.adversarial:
        judge = make_discriminator(PRESETS["medium"].at_size(config.image_size)).to(options.device)
    prepare_networks([networks] if judge is None else [networks, judge])
    batches = Batches(open_pool(options, folder, config.image_size), options)
    parts: dict[str, nn.Module] = {"model": networks} | ({} if judge is None else {"discriminator": judge})
    rates = [(part, VERTEX_RATE if isinstance(part, VertexMlp) else 1.0) for part in networks.children()]
    adam = (options.lr, options.beta1, options.clip_norm)
    training = {name: trained(part, *adam, rates if part is networks else ()) for name, part in parts.items()}
    perceptual = load_perceptual({"vgg19": options.vgg19}, options.device).get("vgg19")
    identity = IdentityLoss(Path(options.face_network)).to(options.device) if options.face_network else None
    objective = RomeObjective(model, head, judge, perceptual, identity, pictures_every=options.pictures_every)
    averaged = RomeNetworks(config, networks.parts).eval().requires_grad_(False)
    run = Run(folder, options, training, resume)  # last: it puts the random numbers where they were
    held_out = unseen_clips(config.image_size, SHEET_PEOPLE, SHEET_FRAMES, options.device) if is_first() else None

    def sheet(path: Path) -> None:
        averaged.load_state_dict(run.average)
        write_rome_sheet(path, Rome(averaged, head).to(options.device), held_out)
        save_weights(averaged, Path(folder) / WEIGHTS_FILE, facts(options, run.step, earlier))

    run.loop(Step(objective, list(training.values()), options.device), batches, sheet)
    averaged.load_state_dict(run.average)
    return averaged.cpu()


def _fresh(options: RomeTrainOptions, head: HeadModel) -> RomeNetworks:
    networks = RomeNetworks(preset_config(options.preset, head), CORE)
    with torch.no_grad():
        networks.vertex_mlp.block_2[-1].weight.mul_(SMALL_START)
    return networks


def facts(options: RomeTrainOptions, steps: int, earlier: str) -> dict[str, str]:
    """Where weights come from, for their file: this run so far, behind what was `earlier`."""
    data = f"synthetic heads, {options.identities} people x {options.frames} frames"
    line = f"{data}, {steps} steps of {options.batch_size} ({options.stage})"
    return {"license": "Apache-2.0", "trained_on": "; ".join(filter(None, (earlier, line)))}
