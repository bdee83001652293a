"""The quantisation report of an avatar: sensitivity, recipe, sizes, pictures, in one folder."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from mobile_avatar.avatar import Avatar
from mobile_avatar.exporters.bundle import golden_outputs
from mobile_avatar.exporters.registry import Request, find_target
from mobile_avatar.exporters.targets.tflite import float_model
from mobile_avatar.exporters.targets.tflite_file import finish as finish_file
from mobile_avatar.exporters.workshop import workshop
from mobile_avatar.files import replace_folder
from mobile_avatar.graphs.deployment import WARPS
from mobile_avatar.graphs.rewrites import rewrite
from mobile_avatar.graphs.rewrites.choice import default_rewrites
from mobile_avatar.graphs.spec import graph_spec
from mobile_avatar.quantization import tflite
from mobile_avatar.quantization.calibration import Calibration
from mobile_avatar.quantization.plots import sensitivity_chart, size_chart, worst_frames
from mobile_avatar.quantization.recipe import MixedRecipe
from mobile_avatar.quantization.sensitivity import (
    GAIN_DB,
    SHARE,
    Judge,
    Measured,
    Progress,
    choose,
    one_at_a_time,
    quantized,
    search,
)
from mobile_avatar.rendering.tracks import varied_keypoints

CASES = 16
TARGET = "tflite"


def quantize_report(
    avatar: Avatar, calibration: Calibration, output: Path, progress: Progress, gain_db: float = GAIN_DB
) -> dict:
    """Measure what integers cost and write `report.json`, `recipe.json` and three pictures into `output`.

    Everything is measured on .tflite files in LiteRT; the recipe names layers, so it serves the other targets too.

    Raises:
        MissingTool: a converter is not installed; CheckFailed: a converter refused the graph.
    """
    target = find_target(TARGET)
    spec = graph_spec("split", avatar.size, target.layout)
    reference = WARPS["split"](avatar.generator, avatar.texture, target.layout).eval()
    network = rewrite(avatar.generator, default_rewrites(TARGET))
    module = WARPS["split"](network, avatar.texture, target.layout).eval()
    keypoints = varied_keypoints(CASES, seed=0, neutral=avatar.source_keypoints.numpy())
    golden = golden_outputs(avatar, reference, spec, keypoints)
    with replace_folder(output) as folder, tempfile.TemporaryDirectory() as place:
        request = Request(module, spec, "fp32", "split", Path(place), {})
        judge = Judge(avatar, spec, keypoints, golden, Path(place))

        def finish(model: bytes) -> bytes:
            return finish_file(model, spec, {})

        with workshop(request.folder, "litert-torch"):
            plain_float = float_model(request)
            half = tflite.half_weights(plain_float)
            integer = float_model(replace(request, precision="w8a8", calibration=calibration.keypoints))
            calibrated = tflite.calibrate(integer, calibration.keypoints)
            wide = tflite.quantize(calibrated, "w8a16").model
        models = {"fp32": plain_float, "fp16": half, "w8a16": wide}
        whole = {name: judge.measure(name, finish(model)) for name, model in models.items()}
        alone = one_at_a_time(judge, calibrated, finish, progress)
        plain = finish(quantized(calibrated, "w8a8").model)
        steps = search(judge, calibrated, finish, alone, (len(plain), whole["fp16"].size), progress)
        w8a8 = steps[0][1]
        kept, mixed = choose(steps, gain_db)
        mixed = replace(mixed, name="mixed")
        facts = quantized(calibrated, "mixed", keep=kept).facts
        report = {
            "avatar": avatar.describe(),
            "measured": f"LiteRT on this machine's CPU, {CASES} keypoint vectors, against torch FP32",
            "calibration": calibration.describe(),
            "layers": [row.to_dict() for row in alone],
            "files": [row.to_dict() for row in (*whole.values(), w8a8, mixed)],
            "recipe": {"keep": list(kept), **gain(w8a8, mixed, whole["fp16"])},
            "mixed_operators": facts,
            "steps": [row.to_dict() | {"keep": list(names)} for names, row in steps],
        }
        (folder / "report.json").write_text(json.dumps(report, indent=1))
        recipe = {"avatar": avatar.describe()["weights_sha256"], "measured_on": TARGET, **report["recipe"]}
        recipe.pop("keep")
        MixedRecipe(kept, recipe).save(folder / "recipe.json")
        sensitivity_chart(alone, kept, folder / "sensitivity.png")
        files = (whole["fp16"], whole["w8a16"], w8a8)
        size_chart(files, [row for _, row in steps], mixed, folder / "size.png")
        worst_frames(golden["image"], (w8a8, mixed), folder / "worst.png")
    return report


def gain(w8a8: Measured, mixed: Measured, fp16: Measured) -> dict:
    """What a recipe buys and what it costs."""
    room = max(1, fp16.size - w8a8.size)
    return {
        "gain_db": round(mixed.psnr_db["image"] - w8a8.psnr_db["image"], 2),
        "worst_gain_db": round(mixed.worst_db - w8a8.worst_db, 2),
        "size_share": round((mixed.size - w8a8.size) / room, 3),
        "size_share_limit": SHARE,
    }


def layer_table(report: dict) -> list[tuple[str, float, float, bool]]:
    """(layer, image PSNR, lowest PSNR, kept) of a report, most sensitive first."""
    kept = set(report["recipe"]["keep"])
    rows = sorted(report["layers"], key=lambda row: row["psnr_db"]["image"])
    return [(row["name"], row["psnr_db"]["image"], row["worst_db"], row["name"] in kept) for row in rows]
