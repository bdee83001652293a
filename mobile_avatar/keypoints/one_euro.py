"""The One Euro filter (Casiez et al., CHI 2012): steady when still, without delay when fast."""

import math

import numpy as np

# Frequency of the low-pass on the speed itself, from the paper.
SPEED_CUTOFF = 1.0


class OneEuro:
    """Filter of an array over time, each element on its own.

    Args:
        steady: cutoff in Hz at rest; lower is smoother.
        follow: how much the cutoff rises with speed, Hz per unit per second; higher lags less.
    """

    def __init__(self, steady: float, follow: float) -> None:
        self._steady, self._follow = steady, follow
        self._value: np.ndarray | None = None
        self._speed: np.ndarray | float = 0.0

    def __call__(self, value: np.ndarray, seconds: float) -> np.ndarray:
        """The filtered `value`, observed `seconds` after the one before."""
        if self._value is None:
            self._value = value
            return value
        seconds = max(seconds, 1e-4)
        speed = (value - self._value) / seconds
        self._speed = self._speed + _weight(SPEED_CUTOFF, seconds) * (speed - self._speed)
        cutoff = self._steady + self._follow * np.abs(self._speed)
        self._value = self._value + _weight(cutoff, seconds) * (value - self._value)
        return self._value


def _weight(cutoff: np.ndarray | float, seconds: float) -> np.ndarray | float:
    """What share of the new value a low-pass of `cutoff` Hz takes."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * seconds))
