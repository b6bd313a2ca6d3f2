"""Runs from elsewhere: everything a source holds is used, or counted and reported; nothing is guessed silently."""

from batchscope.store.importers.batch_science import import_batch_science
from batchscope.store.importers.csv import import_csv
from batchscope.store.importers.curve import import_curve
from batchscope.store.importers.mlflow import import_mlflow
from batchscope.store.importers.optuna import import_optuna
from batchscope.store.importers.result import Imported
from batchscope.store.importers.tables import import_tables
from batchscope.store.importers.tensorboard import import_tensorboard
from batchscope.store.importers.wandb import import_wandb

__all__ = [
    "Imported",
    "import_batch_science",
    "import_csv",
    "import_curve",
    "import_mlflow",
    "import_optuna",
    "import_tables",
    "import_tensorboard",
    "import_wandb",
]
