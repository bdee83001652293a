"""ROME from photo and frames to pictures: what is computed once per avatar and what is computed per frame."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mobile_avatar.errors import BadInput
from mobile_avatar.models.rome.camera import DEPTH, crop, crop_box, project, turn, uncrop_camera
from mobile_avatar.models.rome.head_model import HeadModel
from mobile_avatar.models.rome.mesh_maps import MeshMaps, geometry_features, image_features, mesh_maps
from mobile_avatar.models.rome.networks import RomeNetworks, read_frames
from mobile_avatar.models.rome.parametric import ParametricHead, PosedHead
from mobile_avatar.models.rome.regressors import FaceCodes, FrameCodes, split_frame_codes
from mobile_avatar.models.rome.vertex_mlp import vertex_features, vertex_offsets
from mobile_avatar.rendering.mesh_normals import vertex_normals
from mobile_avatar.rendering.surface_map import SurfaceMap

FRONT = 2 * DEPTH
"""Added to z in front of the camera: the official code adds its constant twice, which rounds depths a little."""


@dataclass(frozen=True)
class Mode:
    """Which networks are used."""

    linear: bool
    """Offsets come from the linear basis, once per avatar; else from the networks over the mesh, per frame."""
    mobile: bool
    """Codes of a frame come from the small regressor, without keypoints; else from DECA's encoder."""


MODES = {
    "full": Mode(linear=False, mobile=False),
    "linear": Mode(linear=True, mobile=False),
    "linear_mobile": Mode(linear=True, mobile=True),
}


@dataclass(frozen=True)
class Person:
    """What is computed once per avatar, for n people."""

    texture: Tensor
    """(n, 8, S, S), unbounded."""
    shape: Tensor
    """(n, n_shape)."""
    offsets: Tensor | None
    """(n, v, 3) of the linear modes; None where they depend on the frame."""

    def repeated(self, times: int) -> "Person":
        """A single person for so many frames; several stay as they are, one per frame."""
        if self.texture.shape[0] == times:
            return self
        if self.texture.shape[0] != 1:
            raise ValueError(f"{self.texture.shape[0]} people cannot be rendered in {times} frames")
        return Person(
            *(None if value is None else value.expand(times, *value.shape[1:]) for value in vars(self).values())
        )


@dataclass(frozen=True)
class Mesh:
    """The meshes of n frames."""

    posed: PosedHead
    """Without offsets, before the head's rotation."""
    offsets: Tensor
    """(n, v, 3)."""
    vertices: Tensor
    """(n, v, 3): posed mesh and offsets."""
    turned: Tensor
    """(n, v, 3): rotated about the root joint."""
    projected: Tensor
    """(n, v, 3): x, y in the picture [-1, 1], y down; z without `FRONT`."""
    landmarks: Tensor
    """(n, 68, 2) in the picture."""


@dataclass(frozen=True)
class Frame:
    """n rendered frames."""

    image: Tensor
    """(n, 3, S, S) in [0, 1]."""
    mask: Tensor
    """(n, 1, S, S) in [0, 1]; `postprocess.on_white` composites."""
    mesh: Mesh
    maps: MeshMaps
    features: Tensor
    """(n, 47, S, S), input of the rendering network."""


class Rome(nn.Module):
    """Networks and a head model that fit each other.

    Args:
        networks: those of the mode; parts that are missing are refused when they are needed.
        head: where the mesh comes from; not part of the state dict.
        mode: a key of MODES.

    Raises:
        BadInput: no such mode, or the head has other numbers of vertices or coefficients than the networks.
    """

    def __init__(self, networks: RomeNetworks, head: HeadModel, mode: str = "full") -> None:
        super().__init__()
        if mode not in MODES:
            raise BadInput(f"ROME mode {mode!r} is not one of {', '.join(MODES)}")
        config = networks.config
        wanted = {"n_vertices": len(head.template), "n_shape": head.shape_basis.shape[2]}
        for name, value in (wanted | {"n_exp": head.expression_basis.shape[2]}).items():
            if getattr(config, name) != value:
                raise BadInput(f"{head.source} has {name} {value}, the networks were made for {getattr(config, name)}")
        self.mode, self.config, self.networks = MODES[mode], config, networks
        self.head = ParametricHead(head)
        for name in ("faces", "uv", "uv_faces", "vertex_uv", "deforms_mask"):
            self.register_buffer(name, getattr(head, name), persistent=False)
        # Only the networks over the mesh need it.
        self.surface = None if self.mode.linear else SurfaceMap(head.faces, head.uv, head.uv_faces, config.image_size)

    def person(self, photo: Tensor, matte: Tensor, keypoints: Tensor) -> Person:
        """Once per avatar.

        Args:
            photo: (n, 3, S, S) RGB in [0, 1], aligned. matte: (n, 1, S, S) in [0, 1], aligned alike.
            keypoints: (n, 68, 2) of the aligned photo in [-1, 1].
        """
        texture = self.networks.part("texture_encoder")(photo, matte)
        shape, offsets = self.linear_codes(photo)
        return Person(texture, self.face_codes(photo, keypoints).shape if shape is None else shape, offsets)

    def linear_codes(self, photo: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Shape (n, n_shape) and offsets (n, v, 3) that the linear modes read off aligned photos (n, 3, S, S).

        Both are None in the full mode, and the shape also where the regressor gives none (`photo_shape`).
        """
        if not self.mode.linear:
            return None, None
        values = self.networks.part("basis_regressor")(photo)
        coefficients, shape = values.split([self.config.n_basis, values.shape[1] - self.config.n_basis], dim=1)
        return shape if self.config.photo_shape else None, self.networks.part("linear_basis")(coefficients)

    def face_codes(self, images: Tensor, keypoints: Tensor) -> FaceCodes:
        """All codes of pictures (n, 3, S, S) with keypoints (n, 68, 2) in [-1, 1]; the camera is the picture's."""
        box = crop_box(keypoints)
        codes = self.networks.part("face_encoder")(crop(images, box))
        return replace(codes, camera=uncrop_camera(codes.camera, box))

    def frame_codes(self, frames: Tensor, keypoints: Tensor | None = None) -> FrameCodes:
        """Codes of frames (n, 3, S, S) in [0, 1]; the mobile mode needs no keypoints (n, 68, 2).

        Raises:
            BadInput: another mode without keypoints.
        """
        if self.mode.mobile:
            return split_frame_codes(read_frames(self.networks, frames), self.config)
        if keypoints is None:
            raise BadInput("this ROME mode reads the face inside a crop around 68 keypoints; give keypoints as well")
        return self.face_codes(frames, keypoints)

    def mesh(self, person: Person, codes: FrameCodes) -> Mesh:
        """Where the vertices are in n frames of one person, or of n."""
        person = person.repeated(codes.pose.shape[0])
        posed = self.head(person.shape, codes.expression, codes.pose)
        offsets = person.offsets if self.mode.linear else self.deformation(person.texture, posed.vertices)
        vertices = posed.vertices + offsets
        turned = turn(vertices, posed.rotation, posed.root)
        landmarks = turn(self.head.landmarks(vertices, posed.rotation), posed.rotation, posed.root)
        return Mesh(
            posed=posed,
            offsets=offsets,
            vertices=vertices,
            turned=turned,
            projected=project(turned, codes.camera),
            landmarks=project(landmarks, codes.camera)[..., :2],
        )

    def deformation(self, texture: Tensor, vertices: Tensor) -> Tensor:
        """Offsets (n, v, 3) that the networks over the mesh give to posed meshes (n, v, 3) in the full mode."""
        inputs = geometry_features(texture, self.surface(vertices), self.config.octaves)
        latent = self.networks.part("geometry_unet")(inputs)
        moves = self.networks.part("vertex_mlp")(vertex_features(latent, self.vertex_uv, self.config.octaves))
        return vertex_offsets(moves, self.deforms_mask, vertex_normals(vertices, self.faces))

    def forward(self, person: Person, codes: FrameCodes) -> Frame:
        """Render n frames of one person, or of n."""
        return self.render(person, self.mesh(person, codes))

    def render(self, person: Person, mesh: Mesh) -> Frame:
        """The second half of `forward`: pictures of n meshes of one person, or of n."""
        person = person.repeated(mesh.projected.shape[0])
        front = mesh.projected + mesh.projected.new_tensor([0, 0, FRONT])
        maps = mesh_maps(front, mesh.vertices, self.faces, self.uv, self.uv_faces, self.config.image_size)
        features = image_features(person.texture, maps.uv, maps.normals, maps.mask, self.config.octaves)
        image, mask = torch.sigmoid(self.networks.part("rendering_unet")(features)).split([3, 1], dim=1)
        return Frame(image, mask, mesh, maps, features)
