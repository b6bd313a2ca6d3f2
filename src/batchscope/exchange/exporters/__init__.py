"""A run in other formats. What is written can be imported again."""

from batchscope.exchange.exporters.batch_science import export_batch_science
from batchscope.exchange.exporters.result import Exported, every
from batchscope.exchange.exporters.tables import export_tables

__all__ = ["Exported", "every", "export_batch_science", "export_tables"]
