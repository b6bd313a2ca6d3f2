"""The estimated curvature radius, which CBLR, MCLR and PercentDelta share, and its guards."""

from __future__ import annotations

from torch import Tensor

from batchscope.optim.rule import Hyper, clamp
from batchscope.optim.table import TABLE

GUARDS = {name: float(TABLE["mclr"].defaults[name] or 0.0) for name in ("minimum_radius", "maximum_radius")}
TINY = 1e-30  # makes 0 / 0 a zero; lost in any gradient or weight that is not zero


def radius(weight: Tensor, gradient: Tensor, hyper: Hyper) -> Tensor:
    """R = abs(w / g), kept within minimum_radius and maximum_radius (GZ20 equations 17 to 19).

    GZ20 calls R a curvature radius. It is that of a parabola whose minimum is at w = 0, without the factor
    (1 + g^2)^(3/2) of equation 9. The paper names where it fails, and each bound is for one of these: w -> 0
    (R -> 0: the parameter would never move again) and g -> 0 (R without limit).
    """
    return clamp(abs(weight / (gradient + TINY)), hyper["minimum_radius"], hyper["maximum_radius"])


def curvature(weight: Tensor, gradient: Tensor, hyper: Hyper) -> Tensor:
    """1 / R, by one division less. Where w = g = 0 both this and R take their lower bound, the quieter one."""
    return clamp(abs(gradient / (weight + TINY)), 1 / hyper["maximum_radius"], 1 / hyper["minimum_radius"])
