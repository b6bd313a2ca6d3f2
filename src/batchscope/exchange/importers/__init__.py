"""Runs from elsewhere: everything a source holds is used, or counted and reported; nothing is guessed silently."""

from batchscope.exchange.importers.batch_science import import_batch_science
from batchscope.exchange.importers.csv import import_csv
from batchscope.exchange.importers.curve import import_curve
from batchscope.exchange.importers.mlflow import import_mlflow
from batchscope.exchange.importers.optuna import import_optuna
from batchscope.exchange.importers.result import Imported
from batchscope.exchange.importers.tables import import_tables
from batchscope.exchange.importers.tensorboard import import_tensorboard
from batchscope.exchange.importers.wandb import import_wandb

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
