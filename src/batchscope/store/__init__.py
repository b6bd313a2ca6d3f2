"""The run folder: what was asked, what was measured, where it comes from. A folder, Parquet, no server."""

from batchscope.store.provenance import collect
from batchscope.store.store import Store, find_runs

__all__ = ["Store", "collect", "find_runs"]
