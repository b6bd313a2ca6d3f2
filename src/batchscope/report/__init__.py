"""The report of a run: figure data as tables, Plotly charts of them, one HTML file, and a still picture."""

from batchscope.report.markup import Cell, Chart, Section, Table
from batchscope.report.page import render

__all__ = ["Cell", "Chart", "Section", "Table", "render"]
