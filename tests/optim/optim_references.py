"""Every rule that torch lacks, written from the papers' equations for lists of numbers: loops, no tensors.

Each function updates one layer: (w, g, state, t, h) -> new w, changing ``state``, a dict of lists of numbers that
starts empty. ``h`` has the hyperparameters, and under "hessian_diagonal" the list of h_ii.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Numbers = list[float]
Reference = Callable[[Numbers, Numbers, dict[str, Numbers], int, dict[str, Any]], Numbers]


def _moved(w: Numbers, step: Numbers, state: dict[str, Numbers], h: dict[str, Any]) -> Numbers:
    old = state.get("velocity", [0.0] * len(w))
    state["velocity"] = [h["momentum"] * v + s for v, s in zip(old, step, strict=True)]
    return [x - h["learning_rate"] * v for x, v in zip(w, state["velocity"], strict=True)]


def _decayed(w: Numbers, g: Numbers, h: dict[str, Any]) -> Numbers:
    return [y + h["weight_decay"] * x for x, y in zip(w, g, strict=True)]


def _norm(x: Numbers) -> float:
    return math.sqrt(math.fsum(y * y for y in x))


def _guarded(radius: float, h: dict[str, Any]) -> float:
    return float(min(max(radius, h["minimum_radius"]), h["maximum_radius"]))


def _estimate(x: float, y: float, h: dict[str, Any]) -> float:
    if x == 0.0:
        return _guarded(0.0, h)
    return _guarded(math.inf if y == 0.0 else abs(x / y), h)


def lars(w: Numbers, g: Numbers, state: dict[str, Numbers], t: int, h: dict[str, Any]) -> Numbers:
    """GZ20 equation 23, with weight decay and momentum as in You 2017a."""
    rate = 1.0
    if _norm(w) > 0 and _norm(g) > 0:
        rate = h["trust"] * _norm(w) / (_norm(g) + h["weight_decay"] * _norm(w))
    return _moved(w, [rate * y for y in _decayed(w, g, h)], state, h)


def lamb(w: Numbers, g: Numbers, state: dict[str, Numbers], t: int, h: dict[str, Any]) -> Numbers:
    """You 2019b, algorithm 2."""
    m = state.get("m", [0.0] * len(w))
    v = state.get("v", [0.0] * len(w))
    state["m"] = m = [h["beta1"] * a + (1 - h["beta1"]) * y for a, y in zip(m, g, strict=True)]
    state["v"] = v = [h["beta2"] * a + (1 - h["beta2"]) * y**2 for a, y in zip(v, g, strict=True)]
    u = []
    for x, first, second in zip(w, m, v, strict=True):
        first /= 1 - h["beta1"] ** t
        second /= 1 - h["beta2"] ** t
        u.append(first / (math.sqrt(second) + h["epsilon"]) + h["weight_decay"] * x)
    ratio = _norm(w) / _norm(u) if _norm(w) > 0 and _norm(u) > 0 else 1.0
    return [x - h["learning_rate"] * ratio * d for x, d in zip(w, u, strict=True)]


def percent_delta(w: Numbers, g: Numbers, state: dict[str, Numbers], t: int, h: dict[str, Any]) -> Numbers:
    """GZ20 equation 24: size / norm1(g / w), every term 1 / R_i of the norm within the guards, 0 / 0 being 0."""
    d = _decayed(w, g, h)
    radii = [_estimate(x, y, h) if y else _guarded(math.inf, h) for x, y in zip(w, d, strict=True)]
    rate = len(w) / math.fsum(1 / radius for radius in radii)
    return _moved(w, [rate * y for y in d], state, h)


def cblr(w: Numbers, g: Numbers, state: dict[str, Numbers], t: int, h: dict[str, Any]) -> Numbers:
    """GZ20 equations 9 to 11."""
    step = []
    for x, y, bend in zip(w, g, h["hessian_diagonal"], strict=True):
        slope, second = y + h["weight_decay"] * x, abs(bend + h["weight_decay"])
        radius = math.inf if second == 0 else (1 + slope**2) ** 1.5 / second
        step.append(_guarded(radius, h) * slope)
    return _moved(w, step, state, h)


def cblr_estimate(w: Numbers, g: Numbers, state: dict[str, Numbers], t: int, h: dict[str, Any]) -> Numbers:
    """GZ20 equations 10, 11 and 17."""
    d = _decayed(w, g, h)
    return _moved(w, [_estimate(x, y, h) * y for x, y in zip(w, d, strict=True)], state, h)


def _by_medians(absolute: bool) -> Reference:
    def update(w: Numbers, g: Numbers, state: dict[str, Numbers], t: int, h: dict[str, Any]) -> Numbers:
        w_m, g_m = (sorted(map(abs, x) if absolute else x)[(len(x) - 1) // 2] for x in (w, g))
        rate = _estimate(w_m, g_m + h["weight_decay"] * w_m, h)
        return _moved(w, [rate * y for y in _decayed(w, g, h)], state, h)

    return update


def lion(w: Numbers, g: Numbers, state: dict[str, Numbers], t: int, h: dict[str, Any]) -> Numbers:
    """Chen et al. 2023, program 1."""
    m = state.get("m", [0.0] * len(w))
    c = [h["beta1"] * a + (1 - h["beta1"]) * y for a, y in zip(m, g, strict=True)]
    state["m"] = [h["beta2"] * a + (1 - h["beta2"]) * y for a, y in zip(m, g, strict=True)]
    signs = [(x > 0) - (x < 0) for x in c]
    return [x - h["learning_rate"] * (s + h["weight_decay"] * x) for x, s in zip(w, signs, strict=True)]


def schedule_free_adamw(w: Numbers, g: Numbers, state: dict[str, Numbers], t: int, h: dict[str, Any]) -> Numbers:
    """Defazio et al. 2024, algorithm 1, with x, y and z each kept: w is y."""
    x, z = state.get("x", w), state.get("z", w)
    v, total = state.get("v", [0.0] * len(w)), state.get("total", [0.0])
    state["v"] = v = [h["beta2"] * a + (1 - h["beta2"]) * y**2 for a, y in zip(v, g, strict=True)]
    rate = h["learning_rate"] * math.sqrt(1 - h["beta2"] ** t)
    terms = zip(z, g, v, w, strict=True)
    z = [a - rate * b / (math.sqrt(c) + h["epsilon"]) - rate * h["weight_decay"] * y for a, b, c, y in terms]
    state["total"] = [total[0] + rate**2]
    share = rate**2 / state["total"][0]
    state["x"] = x = [(1 - share) * a + share * b for a, b in zip(x, z, strict=True)]
    state["z"] = z
    return [(1 - h["beta1"]) * b + h["beta1"] * a for a, b in zip(x, z, strict=True)]


REFERENCES: dict[str, Reference] = {
    "lars": lars,
    "lamb": lamb,
    "percent_delta": percent_delta,
    "cblr": cblr,
    "cblr_estimate": cblr_estimate,
    "mclr": _by_medians(absolute=True),
    "mclr_median": _by_medians(absolute=False),
    "lion": lion,
    "schedule_free_adamw": schedule_free_adamw,
}
