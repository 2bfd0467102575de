"""Where a run's numbers also go: Weights & Biases, TensorBoard, a CSV table, MLflow; several at once, or nowhere.

    metrics.jsonl (the record)  ->  WandbLogger, TensorBoardLogger, CsvLogger, MlflowLogger (mirrors of it)

Each is an observer of the training that starts from its own constructor's arguments, imports its package when the
first row arrives, and ends with one warning if it breaks: the training and the other mirrors go on.
"""

from llama_exp.logger.csv import CsvLogger
from llama_exp.logger.mlflow import MlflowLogger
from llama_exp.logger.needed import find_missing_package, find_wandb_problems
from llama_exp.logger.tensorboard import TensorBoardLogger
from llama_exp.logger.wandb import WandbLogger

__all__ = [
    "CsvLogger",
    "MlflowLogger",
    "TensorBoardLogger",
    "WandbLogger",
    "find_missing_package",
    "find_wandb_problems",
]
