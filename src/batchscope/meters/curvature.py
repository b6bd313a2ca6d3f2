"""The curvature of a loss, by products with its Hessian: diagonal, largest eigenvalues, curvature radius by layer.

Shapes: N examples, P parameters in all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from scipy.stats import norm
from torch import Tensor, nn

from batchscope.errors import MeterError
from batchscope.hutchinson import signs
from batchscope.interval import Interval
from batchscope.meters.objective import Loss, Objective, chunks, size
from batchscope.seeds import numpy_generator, torch_generator
from batchscope.tensors import Pair, Tree

Array = NDArray[np.float64]
Named = dict[str, Tensor]
RESOLVED = 4.0  # standard errors from zero, from which on 1 / |h| is given


class Hessian:
    """Products with the Hessian of the mean loss over N examples, at the model's present weights, which stay.

    Args:
        model: In evaluation mode where it has dropout or batch norm: every product must be of one function.
        loss: (outputs, targets) -> (B,).
        inputs: N examples, a tensor or a nested structure of them.
        targets: Likewise.
        chunk_size: Examples in memory at a time.
    """

    def __init__(self, model: nn.Module, loss: Loss, inputs: Tree, targets: Tree, *, chunk_size: int = 1024) -> None:
        self.objective, self._pair, self._chunk_size = Objective(model, loss), (inputs, targets), chunk_size
        self.parameters = self.objective.parameters
        self.size = sum(p.numel() for p in self.parameters.values())

    def gradient(self) -> Named:
        """Of the mean loss."""
        return self.objective.gradient_of_all(self._pair, self._chunk_size)

    def product(self, vector: Named) -> Named:
        """H v, by reverse mode twice (Pearlmutter 1994); name -> the shape of the parameter."""
        total = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        for part in chunks(self._pair, self._chunk_size):
            for name, value in self._product(vector, part).items():
                total[name] += value * (size(part) / size(self._pair))
        return total

    def _product(self, vector: Named, part: Pair) -> Named:
        def gradient(values: Named) -> Named:
            return self.objective.gradient(values, part)

        pullback = torch.func.vjp(gradient, self.parameters)[1]
        product: Named = pullback(vector)[0]
        return product

    def flat(self, named: Named) -> Array:
        """(P,) in the order of the parameters."""
        flat: Array = torch.cat([named[name].detach().ravel() for name in self.parameters]).double().cpu().numpy()
        return flat

    def named(self, flat: Array) -> Named:
        """A (P,) vector as tensors of the parameters' shapes and types."""
        parts = torch.split(torch.from_numpy(flat.copy()), [p.numel() for p in self.parameters.values()])
        return {
            name: part.reshape(p.shape).to(p) for (name, p), part in zip(self.parameters.items(), parts, strict=True)
        }


@dataclass(frozen=True)
class HessianDiagonal:
    """h_ii for every parameter, as tensors of their shapes, with the standard errors of the estimate."""

    value: Named
    standard_error: Named
    probes: int | None

    def inverse(self) -> Named:
        """1 / |h_ii|, NaN where h_ii is not told from zero: within 4 standard errors.

        An estimate with mean h and variance s^2 has E[1 / |estimate|] = (1 + s^2 / h^2 + ...) / |h|, and no mean at all
        where its distribution reaches zero. The first is divided out, so that the bias left is of fourth order in
        s / h; the second is refused. More probes resolve more.
        """
        inverse = {}
        for name, value in self.value.items():
            share = self.standard_error[name] / value.abs()
            resolved = value.abs() > RESOLVED * self.standard_error[name]
            inverse[name] = torch.where(resolved, 1 / (value.abs() * (1 + share**2)), torch.nan)
        return inverse


def hessian_diagonal(hessian: Hessian, *, probes: int | None = 64, seed: int = 0) -> HessianDiagonal:
    """The diagonal by Hutchinson's estimator, or exactly.

    Args:
        hessian: Whose.
        probes: Products with random signs, at least 2; the standard errors fall as probes^(-1/2). None takes P
            products with unit vectors, which are exact.
        seed: Of the signs.

    Raises:
        MeterError: If there are too few probes.
    """
    parameters = hessian.parameters
    if probes is None:
        diagonal = np.empty(hessian.size)
        for index in range(hessian.size):
            unit = np.zeros(hessian.size)
            unit[index] = 1
            diagonal[index] = hessian.flat(hessian.product(hessian.named(unit)))[index]
        return HessianDiagonal(
            hessian.named(diagonal), {name: torch.zeros_like(p) for name, p in parameters.items()}, None
        )
    if probes < 2:
        raise MeterError(f"probes must be at least 2, so that they tell their own error, or None; got {probes}")
    mean = {name: torch.zeros_like(p) for name, p in parameters.items()}
    squares = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for probe in range(probes):
        z = {
            name: signs(p, torch_generator(seed, "hessian diagonal", probe, name, device=p.device))
            for name, p in parameters.items()
        }
        for name, product in hessian.product(z).items():
            found = z[name] * product
            away = found - mean[name]  # Welford 1962
            mean[name] += away / (probe + 1)
            squares[name] += away * (found - mean[name])
    error = {name: (value / (probes - 1) / probes).sqrt() for name, value in squares.items()}
    return HessianDiagonal(mean, error, probes)


def top_eigenvalues(
    hessian: Hessian,
    count: int = 1,
    *,
    which: Literal["largest", "smallest", "magnitude"] = "largest",
    seed: int = 0,
) -> Array:
    """Eigenvalues of the Hessian by Lanczos (scipy's ``eigsh``), (count,), the largest, or largest in magnitude, first.

    Args:
        hessian: Of which; in float64 where digits beyond four are wanted.
        count: How many, fewer than P.
        which: The algebraically largest, the smallest (most negative first), or the largest in magnitude.
        seed: Of the vector to start from.

    Raises:
        MeterError: If ``count`` is not below the number of parameters, or Lanczos does not converge.
    """
    if not 1 <= count < hessian.size:
        raise MeterError(f"count must be at least 1 and below the {hessian.size} parameters, got {count}")
    double = all(p.dtype == torch.float64 for p in hessian.parameters.values())

    def matvec(vector: Array) -> Array:
        return hessian.flat(hessian.product(hessian.named(vector.ravel())))

    operator = LinearOperator((hessian.size, hessian.size), matvec=matvec, dtype=np.float64)
    start = numpy_generator(seed, "top eigenvalues").normal(size=hessian.size)
    codes = {"largest": "LA", "smallest": "SA", "magnitude": "LM"}
    try:
        found: Array = eigsh(
            operator, count, which=codes[which], v0=start, tol=0 if double else 1e-4, return_eigenvectors=False
        )
    except ArpackNoConvergence as error:
        raise MeterError(f"Lanczos did not converge on {count} eigenvalues: ask for fewer, or use float64") from error
    if which == "smallest":
        return np.sort(found)
    order = np.argsort(-np.abs(found) if which == "magnitude" else -found)
    return found[order]


@dataclass(frozen=True)
class CurvatureRadius:
    """The curvature radius of one parameter tensor: medians over its parameters (GZ20 section 4, figure 2).

    ``exact`` is of R_i = (1 + g_i^2)^(3/2) / |h_ii| (equation 9), between the medians that h_ii, give or take its
    error, leaves possible. ``estimate`` is of |w_i / g_i|, which the paper calls a curvature radius too (equation 17):
    it drops (1 + g^2)^(3/2) and takes the minimum to be at w_i = 0. ``resolved`` is the share of parameters whose h_ii
    is told from zero.
    """

    layer: str
    exact: Interval
    estimate: float | None
    resolved: float


def curvature_radius(hessian: Hessian, diagonal: HessianDiagonal, *, level: float = 0.9) -> list[CurvatureRadius]:
    """By layer, the definition beside the paper's estimate.

    Medians, since the mean of 1 / |h| has no finite expectation where h can be near zero. Where so few diagonal entries
    are resolved that the median lies among the others, its value is None: more probes.
    """
    quantile, rows = float(norm.ppf((1 + level) / 2)), []
    gradient, inverse = hessian.gradient(), diagonal.inverse()
    for name, weight in hessian.parameters.items():
        g, h, error = (part[name].double().ravel() for part in (gradient, diagonal.value, diagonal.standard_error))
        rise = (1 + g**2) ** 1.5
        reciprocal = inverse[name].double().ravel()
        value = _median(rise * reciprocal.nan_to_num(nan=math.inf))
        low = _median(rise / (h.abs() + quantile * error))
        high = _median(rise / (h.abs() - quantile * error).clamp_min(0))
        value = None if value is None else min(max(value, low or 0.0), math.inf if high is None else high)
        resolved = float((~reciprocal.isnan()).double().mean())
        estimate = _median((weight.detach().double().ravel() / g).abs().nan_to_num(nan=0.0))
        rows.append(CurvatureRadius(name, Interval(value, low, high, level), estimate, resolved))
    return rows


def _median(values: Tensor) -> float | None:
    median = float(np.quantile(values.cpu().numpy(), 0.5, method="lower"))
    return median if math.isfinite(median) else None
