"""The MIL evaluator, operation by operation: small programs from coremltools' own builder, answers from numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_avatar.errors import CheckFailed
from mobile_avatar.verification.coreml_package import Program, read_package
from mobile_avatar.verification.mil_torch import OPERATIONS, evaluate

ct = pytest.importorskip("coremltools", reason="coremltools is not installed")
mb = pytest.importorskip("coremltools.converters.mil").Builder

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def build(
    folder: Path, function: Callable, *shapes: tuple[int, ...], half: bool = False, target: object = ct.target.iOS16
) -> Program:
    """Save the program of a builder function with inputs x, y, ... of these shapes, and read it back."""
    arguments = ", ".join("xyz"[: len(shapes)])
    # The builder takes input names from the function's signature.
    wrapped = eval(f"lambda {arguments}: function({arguments})", {"function": function})
    specs = [mb.TensorSpec(shape=shape) for shape in shapes]
    program = mb.program(input_specs=specs, opset_version=target)(wrapped)
    precision = ct.precision.FLOAT16 if half else ct.precision.FLOAT32
    model = ct.convert(program, compute_precision=precision, minimum_deployment_target=target, skip_model_load=True)
    model.save(str(folder / "small.mlpackage"))
    return read_package(folder / "small.mlpackage")


def run(folder: Path, function: Callable, *arrays: np.ndarray, op: str, **options: object) -> np.ndarray:
    """The evaluator's answer; `op` has to be among the operations that were saved."""
    program = build(folder, function, *(array.shape for array in arrays), **options)
    assert op in [operation.type for operation in program.operations]
    inputs = {name: torch.from_numpy(array) for name, array in zip("xyz", arrays, strict=False)}
    (result,) = evaluate(program, inputs).values()
    return result.numpy()


def plain_conv(
    x: np.ndarray, weight: np.ndarray, pads: list[int], strides: list[int], dilations: list[int], groups: int
) -> np.ndarray:
    """2-D convolution by its definition, in float64: one output number at a time."""
    top, bottom, left, right = pads
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    outputs, inputs, kh, kw = weight.shape
    sides = [(x.shape[i + 2] - ((kh, kw)[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in (0, 1)]
    result = np.zeros((x.shape[0], outputs, *sides))
    for n, o, i, j in np.ndindex(*result.shape):
        first = (o // (outputs // groups)) * inputs
        rows = slice(i * strides[0], i * strides[0] + (kh - 1) * dilations[0] + 1, dilations[0])
        columns = slice(j * strides[1], j * strides[1] + (kw - 1) * dilations[1] + 1, dilations[1])
        result[n, o, i, j] = (x[n, first : first + inputs, rows, columns] * weight[o]).sum()
    return result


@pytest.mark.parametrize(
    ("options", "pads"),
    [
        ({"pad_type": "valid"}, [0, 0, 0, 0]),
        ({"pad_type": "custom", "pad": [1, 2, 0, 3]}, [1, 2, 0, 3]),
        ({"pad_type": "custom", "pad": [1, 1, 1, 1], "strides": [2, 1]}, [1, 1, 1, 1]),
        ({"pad_type": "custom", "pad": [2, 2, 3, 3], "dilations": [2, 3]}, [2, 2, 3, 3]),
        # 7 x 6 pixels, kernel 3 x 2, stride 2: 8 - 7 = 2 rows of padding in all, no columns (3 * 2 = 6).
        ({"pad_type": "same", "strides": [2, 2]}, [1, 1, 0, 0]),
        ({"pad_type": "same", "strides": [1, 1]}, [1, 1, 0, 1]),
        ({"pad_type": "same_lower", "strides": [1, 1]}, [1, 1, 1, 0]),
        ({"pad_type": "custom", "pad": [1, 1, 1, 1], "groups": 2}, [1, 1, 1, 1]),
    ],
    ids=lambda value: "-".join(map(str, value.values())).replace(" ", "") if isinstance(value, dict) else "",
)
def test_conv(tmp_path: Path, options: dict, pads: list[int]) -> None:
    groups = options.get("groups", 1)
    x, weight, bias = normal(1, 4, 7, 6), normal(6, 4 // groups, 3, 2), normal(6)
    got = run(tmp_path, lambda x: mb.conv(x=x, weight=weight, bias=bias, **options), x, op="conv")
    strides, dilations = options.get("strides", [1, 1]), options.get("dilations", [1, 1])
    expected = plain_conv(x, weight, pads, strides, dilations, groups) + bias[None, :, None, None]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_conv_in_one_dimension(tmp_path: Path) -> None:
    x, weight = normal(2, 3, 9), normal(5, 3, 3)
    got = run(tmp_path, lambda x: mb.conv(x=x, weight=weight, pad_type="custom", pad=[2, 0]), x, op="conv")
    expected = plain_conv(x[:, :, None], weight[:, :, None], [0, 0, 2, 0], [1, 1], [1, 1], 1)[:, :, 0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "pads"),
    [
        ({"pad_type": "valid"}, [0, 0, 0, 0]),
        ({"pad_type": "custom", "pad": [1, 1, 1, 1], "strides": [2, 2]}, [1, 1, 1, 1]),
        ({"pad_type": "custom", "pad": [0, 1, 2, 0], "strides": [2, 3]}, [0, 1, 2, 0]),
    ],
)
def test_conv_transpose(tmp_path: Path, options: dict, pads: list[int]) -> None:
    x, weight, bias = normal(1, 4, 5, 3), normal(4, 6, 4, 4), normal(6)
    got = run(tmp_path, lambda x: mb.conv_transpose(x=x, weight=weight, bias=bias, **options), x, op="conv_transpose")
    rows, columns = options.get("strides", [1, 1])
    full = np.zeros((1, 6, 4 * rows + 4, 2 * columns + 4))
    for i, j in np.ndindex(5, 3):  # every input pixel stamps the kernel
        full[:, :, i * rows : i * rows + 4, j * columns : j * columns + 4] += np.einsum(
            "nc,cohw->nohw", x[:, :, i, j], weight
        )
    top, bottom, left, right = pads
    expected = full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right] + bias[None, :, None, None]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_pixel_shuffle(tmp_path: Path) -> None:
    x = normal(1, 8, 3, 5)
    got = run(tmp_path, lambda x: mb.pixel_shuffle(x=x, upscale_factor=2), x, op="pixel_shuffle")
    for row, column in np.ndindex(2, 2):
        np.testing.assert_array_equal(got[:, :, row::2, column::2], x[:, 2 * row + column :: 4])


@pytest.mark.parametrize("align_corners", [False, True])
def test_upsample_bilinear(tmp_path: Path, align_corners: bool) -> None:
    x = np.array([0, 1], np.float32).reshape(1, 1, 1, 2)

    def function(x: object) -> object:
        factor = np.float32(2.5)
        return mb.upsample_bilinear(x=x, scale_factor_width=factor, align_corners=align_corners)

    got = run(tmp_path, function, x, op="upsample_bilinear")
    # The table of the operator reference for Xin = 2, Xout = 5.
    expected = [0, 0.25, 0.5, 0.75, 1] if align_corners else [0, 0.1, 0.5, 0.9, 1]
    np.testing.assert_allclose(got.ravel(), expected, atol=1e-6)


INTEGERS = {
    "per tensor": (np.float32(0.25), np.int8(-3), None),
    "no zero point": (np.float32(0.25), None, None),
    "unsigned": (np.float32(0.25), np.uint8(128), None),
    "per channel": (np.array([0.25, 0.5, 1], np.float32), np.array([0, 1, -2], np.int8), 1),
}


@pytest.mark.parametrize("kind", INTEGERS)
def test_quantize_and_dequantize(tmp_path: Path, kind: str) -> None:
    scale, zero, axis = INTEGERS[kind]
    # Multiples of an eighth: halves occur and are rounded to even, and both ends are clipped.
    x = np.arange(-400, 440, 10, dtype=np.float32).reshape(2, 3, 14) / 8
    dtype = np.int8 if zero is None else zero.dtype
    how = {"scale": scale, "zero_point": zero, "axis": axis}
    how = {key: value for key, value in how.items() if value is not None}

    def function(x: object) -> object:
        return mb.dequantize(input=mb.quantize(input=x, output_dtype=str(np.dtype(dtype)), **how), **how)

    got = run(tmp_path, function, x, op="quantize", target=ct.target.iOS17)
    column = (slice(None), None) if axis is not None else ()
    scale, zero = scale[column].astype(np.float64), np.float64(0 if zero is None else zero[column])
    limits = np.iinfo(dtype)
    expected = (np.clip(np.rint(x / scale) + zero, limits.min, limits.max) - zero) * scale
    np.testing.assert_array_equal(got, expected.astype(np.float32))
    assert len(np.unique(got)) > 50


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_stored_as_integers(tmp_path: Path, axis: int) -> None:
    data = RNG.integers(-127, 128, (40, 30)).astype(np.int8)
    scale = RNG.uniform(0.001, 0.01, data.shape[axis]).astype(np.float16)

    def function(x: object) -> object:
        weight = mb.constexpr_affine_dequantize(
            quantized_data=data, zero_point=np.int8(0), scale=scale, axis=np.int32(axis)
        )
        return mb.linear(x=mb.cast(x=x, dtype="fp16"), weight=weight)

    got = run(tmp_path, function, np.eye(30, dtype=np.float32), op="constexpr_affine_dequantize", half=True)
    expected = data * (scale[:, None] if axis == 0 else scale)  # float16
    np.testing.assert_array_equal(got.T, expected.astype(np.float32))


def test_linear_and_matmul(tmp_path: Path) -> None:
    x, weight, bias, y = normal(2, 5), normal(3, 5), normal(3), normal(4, 5)
    got = run(tmp_path, lambda x: mb.linear(x=x, weight=weight, bias=bias), x, op="linear")
    np.testing.assert_allclose(got, np.einsum("ni,oi->no", x, weight) + bias, atol=1e-5)
    got = run(tmp_path, lambda x, y: mb.matmul(x=x, y=y, transpose_y=True), x, y, op="matmul")
    np.testing.assert_allclose(got, np.einsum("ni,mi->nm", x, y), atol=1e-5)
    got = run(tmp_path, lambda x, y: mb.matmul(x=x, y=y, transpose_x=True), x, normal(2, 4), op="matmul")
    assert got.shape == (5, 4)


def test_batch_norm(tmp_path: Path) -> None:
    x, mean, gamma, beta = normal(1, 3, 4, 5), normal(3), normal(3), normal(3)
    variance = RNG.uniform(0.1, 2, 3).astype(np.float32)

    def function(x: object) -> object:
        return mb.batch_norm(x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=np.float32(0.01))

    got = run(tmp_path, function, x, op="batch_norm")
    column = (slice(None), None, None)
    expected = (x - mean[column]) / np.sqrt(variance[column] + 0.01) * gamma[column] + beta[column]
    np.testing.assert_allclose(got, expected, atol=1e-5)


ELEMENTWISE = {
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "sin": np.sin,
    "cos": np.cos,
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(tmp_path: Path, name: str) -> None:
    x = 3 * normal(2, 7)
    np.testing.assert_allclose(
        run(tmp_path, lambda x: getattr(mb, name)(x=x), x, op=name), ELEMENTWISE[name](x), atol=1e-6
    )


def test_leaky_relu(tmp_path: Path) -> None:
    x = np.array([[-2, -0.5, 0, 3]], np.float32)
    got = run(tmp_path, lambda x: mb.leaky_relu(x=x, alpha=np.float32(0.2)), x, op="leaky_relu")
    np.testing.assert_allclose(got, [[-0.4, -0.1, 0, 3]], rtol=1e-6)


def test_relu_and_maximum(tmp_path: Path) -> None:
    x, y = normal(1, 9), normal(1, 9)
    np.testing.assert_array_equal(run(tmp_path, lambda x: mb.relu(x=x), x, op="relu"), np.maximum(x, 0))
    got = run(tmp_path, lambda x, y: mb.maximum(x=x, y=y), x, y, op="maximum")
    np.testing.assert_array_equal(got, np.maximum(x, y))


def test_clip(tmp_path: Path) -> None:
    x = np.array([[-2, -0.5, 0, 3]], np.float32)
    got = run(tmp_path, lambda x: mb.clip(x=x, alpha=np.float32(-1), beta=np.float32(1)), x, op="clip")
    np.testing.assert_array_equal(got, [[-1, -0.5, 0, 1]])


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
def test_arithmetic_broadcasts(tmp_path: Path, name: str) -> None:
    x, y = normal(1, 3, 4, 4), normal(1, 3, 1, 1)
    expected = {"add": x + y, "sub": x - y, "mul": x * y}[name]
    got = run(tmp_path, lambda x, y: getattr(mb, name)(x=x, y=y), x, y, op=name)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_shapes_and_order(tmp_path: Path) -> None:
    x, y = normal(2, 3, 4), normal(2, 1, 4)
    got = run(tmp_path, lambda x: mb.transpose(x=x, perm=[2, 0, 1]), x, op="transpose")
    np.testing.assert_array_equal(got, np.transpose(x, (2, 0, 1)))
    got = run(tmp_path, lambda x: mb.reshape(x=x, shape=[0, 6, -1]), x, op="reshape")
    np.testing.assert_array_equal(got, x.reshape(2, 6, 2))
    got = run(tmp_path, lambda x: mb.expand_dims(x=x, axes=[0, -1]), x, op="expand_dims")
    np.testing.assert_array_equal(got, x[None, ..., None])
    got = run(tmp_path, lambda x, y: mb.concat(values=[x, y], axis=1), x, y, op="concat")
    np.testing.assert_array_equal(got, np.concatenate([x, y], 1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"begin": [0, 1, 0], "end": [2, 3, 4]}, np.s_[:, 1:3, :4]),
        ({"begin": [0, 1, 1], "end": [0, 0, 3], "end_mask": [True, True, False]}, np.s_[:, 1:, 1:3]),
        ({"begin": [0, -2, 0], "end": [2, 5, -1]}, np.s_[:, -2:, :-1]),
        (
            {"begin": [9, 0, 0], "end": [2, 5, 6], "begin_mask": [True, False, False], "stride": [1, 2, 3]},
            np.s_[:, ::2, ::3],
        ),
        ({"begin": [1, 0, 0], "end": [2, 5, 6], "squeeze_mask": [True, False, False]}, np.s_[1]),
        ({"begin": [0, 0, 5], "end": [2, 5, 1], "stride": [1, 1, -2]}, np.s_[:, :, 5:1:-2]),
    ],
    ids=["middle", "end-mask", "negative", "stride", "squeeze", "backwards"],
)
def test_slice_by_index(tmp_path: Path, options: dict, expected: object) -> None:
    x = normal(2, 5, 6)
    got = run(tmp_path, lambda x: mb.slice_by_index(x=x, **options), x, op="slice_by_index")
    np.testing.assert_array_equal(got, x[expected])


def test_upsample_nearest_neighbor(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)

    def function(x: object) -> object:
        return mb.upsample_nearest_neighbor(x=x, scale_factor_height=2, scale_factor_width=3)

    got = run(tmp_path, function, x, op="upsample_nearest_neighbor")
    assert got[0, 0].tolist() == [[0] * 3 + [1] * 3 + [2] * 3] * 2 + [[3] * 3 + [4] * 3 + [5] * 3] * 2


def plain_resample(x: np.ndarray, grid: np.ndarray, align_corners: bool, outside: float) -> np.ndarray:
    """Bilinear sampling by its definition, one pixel at a time."""
    _, channels, height, width = x.shape
    result = np.zeros((1, channels, *grid.shape[1:3]))
    for i, j in np.ndindex(*grid.shape[1:3]):
        column, row = grid[0, i, j].astype(np.float64)
        column = (column + 1) / 2 * (width - 1) if align_corners else ((column + 1) * width - 1) / 2
        row = (row + 1) / 2 * (height - 1) if align_corners else ((row + 1) * height - 1) / 2
        for r in (int(np.floor(row)), int(np.floor(row)) + 1):
            for c in (int(np.floor(column)), int(np.floor(column)) + 1):
                weight = (1 - abs(row - r)) * (1 - abs(column - c))
                inside = 0 <= r < height and 0 <= c < width
                result[0, :, i, j] += weight * (x[0, :, r, c] if inside else outside)
    return result


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("outside", [0.0, 0.5])
def test_resample(tmp_path: Path, align_corners: bool, outside: float) -> None:
    x, grid = normal(1, 2, 5, 7), RNG.uniform(-1.4, 1.4, (1, 4, 6, 2)).astype(np.float32)

    def function(x: object, y: object) -> object:
        options = {"sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": np.float32(outside)}
        mode = "normalized_minus_one_to_one"
        return mb.resample(x=x, coordinates=y, coordinates_mode=mode, align_corners=align_corners, **options)

    got = run(tmp_path, function, x, grid, op="resample")
    np.testing.assert_allclose(got, plain_resample(x, grid, align_corners, outside), atol=1e-5)


def test_resample_refuses_what_it_does_not_model(tmp_path: Path) -> None:
    def function(x: object, y: object) -> object:
        options = {"sampling_mode": "nearest", "padding_mode": "border", "padding_value": np.float32(0)}
        mode = "normalized_minus_one_to_one"
        return mb.resample(x=x, coordinates=y, coordinates_mode=mode, align_corners=False, **options)

    with pytest.raises(CheckFailed, match="sampling_mode='nearest' is not known"):
        run(tmp_path, function, normal(1, 1, 4, 4), normal(1, 2, 2, 2), op="resample")


@pytest.mark.parametrize("dtype", ["fp16", "int32"])
def test_cast(tmp_path: Path, dtype: str) -> None:
    x = np.array([[-1.7, 0.1, 2.9, 1000.4]], np.float32)
    got = run(tmp_path, lambda x: mb.cast(x=mb.cast(x=x, dtype=dtype), dtype="fp32"), x, op="cast")
    np.testing.assert_array_equal(got, x.astype({"fp16": np.float16, "int32": np.int32}[dtype]).astype(np.float32))


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("count", [3, 500], ids=["in the program", "in weight.bin"])
def test_constants_are_read_from_wherever_they_are(tmp_path: Path, half: bool, count: int) -> None:
    constant = normal(count)
    program = build(tmp_path, lambda x: mb.mul(x=x, y=constant), (1, count), half=half)
    assert program.blobs == (1 if count == 500 else 0)
    (result,) = evaluate(program, {"x": torch.ones(1, count)}).values()
    expected = constant.astype(np.float16) if half else constant
    np.testing.assert_array_equal(result.float().numpy()[0], expected.astype(np.float32))


@pytest.mark.parametrize("count", [3, 500])
def test_integer_constants(tmp_path: Path, count: int) -> None:
    constant = RNG.integers(-1000, 1000, count).astype(np.int32)

    def function(x: object) -> object:
        return mb.cast(x=mb.add(x=mb.cast(x=x, dtype="int32"), y=constant), dtype="fp32")

    got = run(tmp_path, function, np.full((1, count), 7, np.float32), op="add")
    np.testing.assert_array_equal(got[0], constant + 7)


def test_half_precision_rounds_after_every_operation_and_overflows(tmp_path: Path) -> None:
    def function(x: object) -> object:
        return mb.sub(x=mb.add(x=x, y=np.float32(2048)), y=np.float32(2048))

    x = np.array([[0.3, 1.0, 3.0]], np.float32)
    # Above 2048 half-precision numbers are 2 apart; ties go to even.
    np.testing.assert_array_equal(run(tmp_path, function, x, op="add", half=True), [[0, 0, 4]])
    np.testing.assert_allclose(run(tmp_path, function, x, op="add"), x, atol=1e-4)
    big = np.array([[300.0, 200.0]], np.float32)
    assert run(tmp_path, lambda x: mb.mul(x=x, y=x), big, op="mul", half=True).tolist() == [[np.inf, 40000.0]]


def test_sums_inside_an_operation_are_float32(tmp_path: Path) -> None:
    # 4096 products of 1 followed by one of 0.5: half-precision sums would stop at 2048.
    x = np.ones((1, 4096), np.float32)
    got = run(tmp_path, lambda x: mb.linear(x=x, weight=np.ones((1, 4096), np.float32)), x, op="linear", half=True)
    assert got.item() == 4096


def test_unknown_operation_is_refused(tmp_path: Path) -> None:
    assert "erf" not in OPERATIONS
    program = build(tmp_path, lambda x: mb.erf(x=x), (1, 4))
    with pytest.raises(CheckFailed, match=r"operation 'erf' .* is not known to the MIL evaluator"):
        evaluate(program, {"x": torch.zeros(1, 4)})


def test_every_tensor_is_shown(tmp_path: Path) -> None:
    program, shown = build(tmp_path, lambda x: mb.cos(x=mb.sin(x=x)), (1, 4)), {}
    (result,) = evaluate(program, {"x": torch.ones(1, 4)}, shown.__setitem__).values()
    first, last = shown.values()
    np.testing.assert_allclose(first.numpy(), np.full((1, 4), np.sin(1)), rtol=1e-6)
    assert last is result


def test_declared_shape_is_held_to(tmp_path: Path) -> None:
    program = build(tmp_path, lambda x: mb.transpose(x=x, perm=[1, 0]), (2, 3))
    program.operations[0].inputs["perm"] = [torch.tensor([0, 1])]
    with pytest.raises(CheckFailed, match=r"gives shape \(2, 3\), but the file declares \(3, 2\)"):
        evaluate(program, {"x": torch.zeros(2, 3)})
