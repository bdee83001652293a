"""Writing a mesh file that has been read back, checked and looked at."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from mobile_avatar.errors import CheckFailed
from mobile_avatar.files import replace_file
from mobile_avatar.models.rome.mesh_check import POSES, TOLERANCE, largest_distance
from mobile_avatar.models.rome.mesh_file import save_mesh
from mobile_avatar.models.rome.mesh_rig import Rig
from mobile_avatar.models.rome.mesh_sheet import Look, write_mesh_sheet
from mobile_avatar.rendering.rigged_mesh import read_glb


def write_checked(rig: Rig, looks: Mapping[str, Look], output: Path, sheet: Path) -> dict:
    """Write the file and its contact sheet; neither takes its place before the file has passed.

    Returns:
        What the command reports: `MeshContents`, paths, bytes, and the largest distances over random poses in metres.

    Raises:
        CheckFailed: the file moves otherwise than the head.
    """
    with replace_file(output) as temporary:
        contents = save_mesh(rig, temporary)
        mesh = read_glb(temporary)
        followed, resting = largest_distance(mesh, rig)
        if not followed <= TOLERANCE:
            raise CheckFailed(
                f"{output} was not written: its mesh is up to {followed * 1e3:.2g} mm away from "
                f"{rig.source}, {TOLERANCE * 1e3:.2g} mm are allowed"
            )
        size = temporary.stat().st_size
        write_mesh_sheet(mesh, looks, sheet)
    return {
        "mesh": str(output),
        "contact_sheet": str(sheet),
        "bytes": size,
        **dataclasses.asdict(contents),
        "poses": POSES,
        "distance_m": followed,
        "distance_resting_joints_m": resting,
        "license": rig.facts["license"],
    }
