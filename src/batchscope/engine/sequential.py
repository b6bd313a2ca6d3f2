"""When an evaluation may end early: sequential analysis (Wald 1945) of one question, whether a mean is beyond a goal.

The first n of N validation examples are a random sample without replacement. After each part of them a trial is out of
reach if their mean is on the wrong side of the goal by more than ``STANDARD_ERRORS``. What that costs in certainty is
less than one wrong rejection in 10^3 evaluations that were just beyond the goal (tests/engine/test_sequential.py); what
it saves is nearly every example of a trial that is far away. Nothing is estimated: a mean that is recorded is over all
N.

1. A metric that is 0 or 1 (an error, a hit) has k hits in the sample, and would need N p in all to be at the goal p.
   The statistic is the signed root of twice -log P(k), hypergeometric, by Stirling's formula:
   n KL(k/n, p) + (N - n) KL(p', p), with p' = (N p - k)/(N - n) for the examples not seen yet. Where p' is none of
   [0, 1], no values of theirs could reach the goal.
2. For any other metric it is the mean's distance in standard errors, sigma sqrt((1 - n/N)/n) (Cochran 1977, theorem
   2.2), on ``FEWEST`` examples at least, and corrected for skewness by Hall's transformation (Hall 1992, Journal of the
   Royal Statistical Society B 54) where that makes it smaller: rare good examples that the sample may have missed. A
   sample without any variance decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from batchscope.spec.goal import Goal

STANDARD_ERRORS = 3.9
FEWEST = 256
# Of any other metric: its variance and its skewness are estimates themselves.
STANDARD_ERRORS_ESTIMATED = 4.3


@dataclass(frozen=True)
class Sample:
    """A metric on the first examples.

    Attributes:
        count: n.
        total: N.
        first: Sum of the values.
        second: Sum of their squares.
        third: Sum of their cubes.
        binary: Whether every value is 0 or 1.
    """

    count: int
    total: int
    first: float
    second: float
    third: float
    binary: bool

    def is_out_of_reach(self, goal: Goal) -> bool:
        """Whether the mean over all examples is, for all that can be told, not beyond the goal."""
        # Towards the wrong side, whichever it is, is up.
        sign = 1.0 if goal.side == "<" else -1.0
        mean = self.first / self.count
        sums = (self.first, self.second, self.third)
        if self.count >= self.total or not all(map(math.isfinite, sums)) or not sign * (mean - goal.threshold) > 0:
            return False
        if self.binary and 0 < goal.threshold < 1:
            return self._root_likelihood_ratio(goal.threshold, sign) > STANDARD_ERRORS
        return self.count >= FEWEST and self._standard_errors(goal.threshold, sign) > STANDARD_ERRORS_ESTIMATED

    def _root_likelihood_ratio(self, p: float, sign: float) -> float:
        """Of k hits or more (fewer, where ``sign`` is -1), if all examples together had N p."""
        unseen = self.total - self.count
        if not 0 <= self.total * p - self.first <= unseen:
            return math.inf
        # The usual correction for a count: the tail begins half a hit before k.
        hits = self.first - sign / 2
        seen, rest = hits / self.count, (self.total * p - hits) / unseen
        if sign * (seen - p) <= 0:
            return 0.0
        return math.sqrt(2 * (self.count * _divergence(seen, p) + unseen * _divergence(min(max(rest, 0.0), 1.0), p)))

    def _standard_errors(self, threshold: float, sign: float) -> float:
        """Between the mean and the threshold, corrected for skewness."""
        n, mean, square = self.count, self.first / self.count, self.second / self.count
        variance = square - mean**2
        if variance <= 1e-12 * square:
            return 0.0
        statistic = sign * (mean - threshold) / math.sqrt(variance / (n - 1) * (1 - n / self.total))
        third = self.third / n - 3 * mean * square + 2 * mean**3
        return min(statistic, _hall(statistic, sign * third / variance**1.5, n))


def _divergence(q: float, p: float) -> float:
    """KL(q, p) of two Bernoulli distributions, in nats; not below 0, where rounding would put it."""
    terms = [a * math.log(a / b) for a, b in ((q, p), (1 - q, 1 - p)) if a > 0]
    return max(sum(terms), 0.0)


def _hall(statistic: float, skewness: float, n: int) -> float:
    """T + g T^2/(3 sqrt n) + g^2 T^3/(27 n) + g/(6 sqrt n), for a mean with the skewness g of its sample.

    Hall's polynomial with the coefficients of a mean; monotone in T, so that no trial is too far away to be rejected.
    """
    root = math.sqrt(n)
    return (
        statistic + skewness * statistic**2 / (3 * root) + skewness**2 * statistic**3 / (27 * n) + skewness / (6 * root)
    )
