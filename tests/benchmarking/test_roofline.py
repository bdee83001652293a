"""The device table, the roofline and its calibration: every number has a source, and the fit is what it says."""

import importlib.resources
import math
import statistics
from dataclasses import replace

import pytest
import yaml

from mobile_avatar.benchmarking.calibration import FLOORS, LEAST, NONE, calibrate, scatter
from mobile_avatar.benchmarking.devices import Sourced, chip_called, chips, default_chip, serving_unit, units
from mobile_avatar.benchmarking.reference_models import CLASSIFIERS, reference_layers
from mobile_avatar.benchmarking.roofline import WIDTHS, layer_times, total_ms
from mobile_avatar.exporters.recipes import recipes
from mobile_avatar.exporters.registry import targets
from mobile_avatar.graphs.layers import Layer

TABLE = yaml.safe_load(importlib.resources.files("mobile_avatar.benchmarking").joinpath("devices.yaml").read_text())
FITTED = [(unit.name, precision) for unit in units().values() for precision in unit.peak if unit.points]
LAYER = Layer("conv", "Conv", 1_000_000_000, 100_000, 4_000_000, 2_000_000)
ADRENO = units()["adreno-640"]


def test_every_number_of_the_table_has_a_source_and_every_source_is_used():
    used = set()
    for unit in units().values():
        numbers = [unit.compute_share, unit.traffic_share, unit.overhead_us, unit.bandwidth, *unit.peak.values()]
        for number in [*numbers, *(point.ms for point in unit.points)]:
            assert math.isfinite(number.value)
            assert number.value > 0 or number is unit.overhead_us
            assert len(number.source) > 10
            used.add(number.source)
        assert set(unit.peak) <= set(WIDTHS)
        assert {point.precision for point in unit.points} <= set(unit.peak)
        assert 0 < unit.compute_share.value <= 1
        assert 0 < unit.traffic_share.value <= 1
    assert used == set(TABLE["sources"].values())
    assert {unit for chip in chips().values() for unit in chip.units} < set(units())


def test_names_are_unique_and_chips_know_their_ids_and_phones():
    names = [name for chip in chips().values() for name in (chip.name, chip.title, *chip.aliases)]
    assert len(names) == len(set(names))
    for name, chip in (
        ("SM8150", "snapdragon-855"),
        ("Google Pixel 4 (Family)", "snapdragon-855"),
        ("Pixel 4 XL", "snapdragon-855"),
        ("SM8650-AC", "snapdragon-8-gen-3"),
        ("Samsung Galaxy S24+", "snapdragon-8-gen-3"),
        ("Qualcomm® Snapdragon™ 8 Elite", "snapdragon-8-elite"),
        ("qualcomm-snapdragon-8gen2", "snapdragon-8-gen-2"),
        ("iPhone 14", "apple-a15"),
        ("iPhone 14 Pro", "apple-a16"),
    ):
        assert chip_called(name).name == chip, name
    assert chip_called("Pixel 40") is None
    assert chip_called("") is None


@pytest.mark.parametrize(
    ("model", "gmac", "million_weights"),
    [
        ("MobileNet v1", 0.569, 4.2),
        ("MobileNet v2", 0.300, 3.5),
        ("ResNet-50", 4.09, 25.5),
        ("U-Net 640x1280", 602, 31.0),
        ("FOMM generator", 53.64, 45.6),
        ("bi-layer medium as released", 4.31, 5.7),
    ],
)
def test_reference_networks_have_the_published_size(model, gmac, million_weights):
    layers = reference_layers(model)
    assert sum(layer.macs for layer in layers) / 1e9 == pytest.approx(gmac, rel=0.005)
    assert sum(layer.weights for layer in layers) / 1e6 == pytest.approx(million_weights, rel=0.02)


def test_terms_of_one_layer_by_hand():
    (time,) = layer_times([LAYER], ADRENO, "fp16", efficiency=0.5)
    assert time.compute_ms == pytest.approx(2e9 / (1797e9 * 0.35 * 0.5) * 1000)
    assert time.traffic_ms == pytest.approx(2 * 6_100_000 / (34.1e9 * 0.85 * 0.5) * 1000)
    assert time.ms == pytest.approx(max(time.compute_ms, time.traffic_ms) + 0.1)
    (whole,) = layer_times([LAYER], ADRENO, "fp32", efficiency=0.5)
    assert whole.traffic_ms == pytest.approx(2 * time.traffic_ms)
    assert total_ms([time, whole]) == time.ms + whole.ms


@pytest.mark.parametrize("field", ["macs", "weights", "read", "written"])
def test_more_work_is_never_faster(field):
    for unit in units().values():
        for precision in unit.peak:
            before = after = None
            for factor in (1, 2, 5, 5000):
                layer = replace(LAYER, **{field: getattr(LAYER, field) * factor})
                after = total_ms(layer_times([layer], unit, precision, 0.7))
                assert before is None or after >= before
                before = after
            assert after > total_ms(layer_times([LAYER], unit, precision, 0.7))


def test_a_faster_unit_is_never_slower():
    layers = reference_layers("ResNet-50")
    (slow,) = [total_ms(layer_times(layers, ADRENO, "fp16"))]
    for change in (
        {"peak": {"fp16": Sourced(4000, "test")}},
        {"bandwidth": Sourced(60, "test")},
        {"compute_share": Sourced(0.5, "test")},
        {"traffic_share": Sourced(1.0, "test")},
        {"overhead_us": Sourced(10, "test")},
    ):
        faster = replace(ADRENO, **change)
        assert total_ms(layer_times(layers, faster, "fp16")) < slow
        for before, after in zip(layer_times(layers, ADRENO, "fp16"), layer_times(layers, faster, "fp16"), strict=True):
            assert after.compute_ms <= before.compute_ms
            assert after.traffic_ms <= before.traffic_ms
            assert after.overhead_ms <= before.overhead_ms
    assert total_ms(layer_times(layers, ADRENO, "fp16", 1.1)) < slow


@pytest.mark.parametrize(("unit", "precision"), FITTED)
def test_calibrations_meet_their_points_within_the_spread_they_state(unit, precision):
    found = calibrate(unit, precision)
    points = [point for point in units()[unit].points if point.precision == precision]
    if not points:
        assert found.residuals == ()
        return
    logs = {True: [], False: []}
    for point, residual in zip(points, found.residuals, strict=True):
        # Afresh from the table: the residual is no stored number.
        times = layer_times(reference_layers(point.model), units()[unit], precision, found.efficiency)
        assert residual.estimate_ms == pytest.approx(total_ms(times), rel=1e-9)
        assert residual.factor == pytest.approx(point.ms.value / total_ms(times), rel=1e-9)
        assert 1 / found.spread <= residual.factor * (1 + 1e-9)
        assert residual.factor <= found.spread * (1 + 1e-9)
        logs[point.model in CLASSIFIERS].append(math.log(residual.factor))
    assert sum(statistics.fmean(group) for group in logs.values() if group) == pytest.approx(0, abs=1e-6)
    assert found.spread >= FLOORS.get(len(points), LEAST)


@pytest.mark.parametrize(("family", "step"), [("adreno", 10), ("mali", 20), ("hexagon", 0.5)])
def test_fitted_overheads_are_where_the_spread_is_smallest(family, step):
    overhead = next(unit.overhead_us for unit in units().values() if unit.family == family)
    assert overhead.source.startswith("fitted")
    here = scatter(family, overhead.value)
    assert here <= scatter(family, overhead.value - step)
    assert here <= scatter(family, overhead.value + step)


def test_units_without_a_point_take_the_median_of_their_family_and_a_wider_spread():
    known = [calibrate(f"adreno-{number}", "fp16") for number in (630, 640, 650)]
    found = calibrate("adreno-740", "fp16")
    assert found.efficiency == statistics.median(row.efficiency for row in known)
    assert found.spread >= max(NONE, *(row.spread for row in known))
    assert "since no time of this one is known" in found.basis
    assert "Adreno 640 GPU in fp16" in found.basis


def test_every_export_is_served_or_refused_with_a_sentence():
    served = set()
    for chip in chips().values():
        for target in targets().values():
            for precision in target.precisions:
                for warp in target.warps:
                    unit, text = serving_unit(chip, target.name, precision, warp)
                    if unit is None:
                        assert text.startswith(f"{chip.title}: ")
                    else:
                        assert text in unit.peak
                        assert unit.name in chip.units
                        served.add(unit.name)
    assert {name for chip in chips().values() for name in chip.units} - served == {"hexagon-v66"}


def test_who_computes_what():
    def who(chip, *bundle):
        unit, text = serving_unit(chips()[chip], *bundle)
        return text if unit is None else (unit.name, text)

    assert who("snapdragon-855", "snpe", "fp16", "split") == ("adreno-640", "fp16")
    assert who("snapdragon-888", "snpe", "fp16", "split") == ("adreno-660", "fp16")
    assert who("snapdragon-888", "snpe", "w8a8", "split") == ("hexagon-v68", "w8a8")
    assert who("snapdragon-8-elite", "snpe", "fp16", "native") == ("hexagon-v79", "fp16")
    assert who("snapdragon-8-elite", "tflite", "fp16", "split") == ("adreno-830", "fp16")
    assert who("snapdragon-855", "tflite", "fp16", "gather") == ("kryo-485", "fp32")
    assert who("snapdragon-855", "executorch", "mixed", "split") == ("kryo-485", "w8a8")
    assert who("tensor-g2", "tflite", "fp16", "split") == ("mali-g710-mp7", "fp16")
    assert who("apple-a16", "coreml", "w8a8", "split") == ("ane-a16", "w8a8")
    assert "8-bit integers only" in who("snapdragon-855", "snpe", "w8a8", "split")
    assert "no unit of it is known to run snpe" in who("apple-a16", "snpe", "fp16", "split")


def test_a_bundle_is_judged_for_the_chip_of_its_recipe_or_the_usual_one():
    found = {name: default_chip(recipe.target, name) for name, recipe in recipes().items()}
    assert found["snapdragon-8-elite"] == "snapdragon-8-elite"
    assert found["iphone"] == "apple-a14"
    assert found["android-gpu"] == found["desktop"] == found["snapdragon-855"] == "snapdragon-855"
    assert set(TABLE["default_chip"]) == set(targets())
