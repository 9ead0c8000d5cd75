"""Both sides of given tokens: batches, one forward pass, and the pipeline that training and supervision share."""

from opsd_lab.scoring.batching import Batch, Example, build_batch, micro_batches
from opsd_lab.scoring.columns import build_table
from opsd_lab.scoring.forward import CompletionStates, score_completions
from opsd_lab.scoring.pipeline import Pipeline, Scored, token_losses

__all__ = [
    "Batch",
    "CompletionStates",
    "Example",
    "Pipeline",
    "Scored",
    "build_batch",
    "build_table",
    "micro_batches",
    "score_completions",
    "token_losses",
]
