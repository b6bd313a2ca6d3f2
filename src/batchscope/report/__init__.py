"""The report of a run: figure data as tables, Plotly charts of them, one HTML file, and a still picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscope.lazy import exports

if TYPE_CHECKING:
    from batchscope.report import charts as charts
    from batchscope.report import comparison as comparison
    from batchscope.report import page as page
    from batchscope.report import picture as picture
    from batchscope.report import recommendation as recommendation
    from batchscope.report import sections as sections
    from batchscope.report.markup import Cell as Cell
    from batchscope.report.markup import Chart as Chart
    from batchscope.report.markup import Section as Section
    from batchscope.report.markup import Table as Table
    from batchscope.report.page import render as render
else:  # a type checker is not told of __getattr__: it would believe every name
    __all__, __getattr__ = exports(
        __name__,
        {
            "": ("charts", "comparison", "page", "picture", "recommendation", "sections"),
            "markup": ("Cell", "Chart", "Section", "Table"),
            "page": ("render",),
        },
    )
