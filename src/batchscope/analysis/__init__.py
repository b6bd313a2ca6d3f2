"""From the tables of a run to frozen results: pure functions, without torch."""

from batchscope.analysis.audit import ExpectedSteps, expected_steps
from batchscope.analysis.budgets import BudgetQuality, best_under_budgets
from batchscope.analysis.curve import Curve
from batchscope.analysis.curve_comparison import Contour, NormalisedCurves, Speedup, compare, contour, speedup
from batchscope.analysis.headline import Headline, headline
from batchscope.analysis.laws import Law
from batchscope.analysis.outcomes import Table, needed
from batchscope.analysis.question import Answer, Given, Question, Refused
from batchscope.analysis.questions import QUESTIONS, Answers, answered
from batchscope.analysis.regimes import Regimes
from batchscope.analysis.scaling_rules import RuleCheck, rule_check
from batchscope.analysis.stability import Sensitivity, StabilityMap, sensitivity, stability_map
from batchscope.analysis.steps import steps_to_result
from batchscope.analysis.summary import other_analyses, plain_rows, summary
from batchscope.interval import Interval

__all__ = [
    "QUESTIONS",
    "Answer",
    "Answers",
    "BudgetQuality",
    "Contour",
    "Curve",
    "ExpectedSteps",
    "Given",
    "Headline",
    "Interval",
    "Law",
    "NormalisedCurves",
    "Question",
    "Refused",
    "Regimes",
    "RuleCheck",
    "Sensitivity",
    "Speedup",
    "StabilityMap",
    "Table",
    "answered",
    "best_under_budgets",
    "compare",
    "contour",
    "expected_steps",
    "headline",
    "needed",
    "other_analyses",
    "plain_rows",
    "rule_check",
    "sensitivity",
    "speedup",
    "stability_map",
    "steps_to_result",
    "summary",
]
