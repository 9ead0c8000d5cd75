"""The loop, its settings and records, recipes, checkpoints and what a run costs."""

from opsd_lab.training.checkpoints import load_checkpoint, save_checkpoint
from opsd_lab.training.ledger import Ledger
from opsd_lab.training.recipes import Recipe
from opsd_lab.training.records import StepRecord, TrainingParams
from opsd_lab.training.trainer import NonFiniteError, Trainer

__all__ = [
    "Ledger",
    "NonFiniteError",
    "Recipe",
    "StepRecord",
    "Trainer",
    "TrainingParams",
    "load_checkpoint",
    "save_checkpoint",
]
