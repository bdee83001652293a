"""Which rewrites a target gets by default, each with the fact that decided.

Ratios are one-thread times of the medium graph at 256 px, all in one run (benchmarks/, docs/performance.md). Where
nothing could be measured the row says so, and multiply-accumulates decide.
"""

from dataclasses import dataclass

from mobile_avatar.graphs.rewrites import ALWAYS, check_rewrites


@dataclass(frozen=True)
class Choice:
    """A row of the table."""

    rewrites: tuple[str, ...]
    fact: str


CHOICES: dict[str, Choice] = {
    "tflite": Choice(
        (*ALWAYS, "base-nhwc", "phases-nhwc"),
        "measured, LiteRT on x86: phases take 0.7 of the time of up-sampling + 3x3 in fp32 and 0.75 in w8a8; a "
        "transposed convolution takes 1.4 and 0.8, and some GPU drivers refuse it",
    ),
    "onnx": Choice(
        (*ALWAYS, "transposed"),
        "measured, ONNX Runtime on x86: a transposed convolution takes 0.75 of the time of up-sampling + 3x3, phases "
        "0.77",
    ),
    "snpe": Choice(
        (*ALWAYS, "transposed"),
        "not measured for speed (no phone): the fewest multiply-accumulates; the Hexagon simulator takes it whole",
    ),
    "coreml": Choice(ALWAYS, "not measured for speed (no Mac): up-sampling + 3x3, which every compute unit has"),
    "executorch": Choice(
        (*ALWAYS, "transposed"),
        "measured, ExecuTorch on x86: a transposed convolution takes 0.65 of the time of up-sampling + 3x3 in fp32 and "
        "0.73 in w8a8; phases take as long",
    ),
}


def default_rewrites(target: str) -> tuple[str, ...]:
    """The rewrites of a target, in the order in which they are applied."""
    return check_rewrites(CHOICES[target].rewrites)
