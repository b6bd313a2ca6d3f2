"""A number with its interval, and how samples of a number become one. Known to every room; without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interval:
    """A value between its bounds; ``None`` is a value, or a side, that the measurements leave open.

    ``level`` is the probability with which the interval is meant to hold the truth.
    """

    value: float | None
    low: float | None
    high: float | None
    level: float = 0.9

    def __post_init__(self) -> None:
        """Refuse bounds that are out of order or not finite."""
        numbers = [number for number in (self.low, self.value, self.high) if number is not None]
        if not all(map(math.isfinite, numbers)) or numbers != sorted(numbers):
            raise ValueError(f"an interval needs finite low <= value <= high, got {self}")

    @classmethod
    def from_samples(cls, value: float, samples: NDArray[np.float64], level: float = 0.9) -> Interval:
        """The central interval of samples (D,), widened to hold ``value``; what is infinite becomes ``None``.

        An infinite draw says "below", or "beyond", what was measured.
        """
        # Order statistics, not interpolation: between a finite draw and an infinite one there is no number.
        low = float(np.quantile(samples, (1 - level) / 2, method="lower"))
        high = float(np.quantile(samples, (1 + level) / 2, method="higher"))
        return cls(_finite(value), _finite(min(low, value)), _finite(max(high, value)), level)

    @classmethod
    def from_log_samples(cls, value: float, log_samples: NDArray[np.float64], level: float = 0.9) -> Interval:
        """The same of samples (D,) that are given by their logarithms; one too large for a number counts as infinite.

        A logarithm of minus infinity says "below" too.
        """
        with np.errstate(over="ignore"):
            return cls.from_samples(value, np.where(np.isneginf(log_samples), -np.inf, np.exp(log_samples)), level)

    def to_dict(self) -> dict[str, float | None]:
        """``{"value", "low", "high"}``, ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
