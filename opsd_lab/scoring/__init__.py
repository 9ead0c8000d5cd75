"""Both sides of given tokens: batches, and one forward pass."""

from opsd_lab.scoring.batching import DistillBatch, Example, build_batch, micro_batches
from opsd_lab.scoring.forward import CompletionStates, score_completions

__all__ = ["CompletionStates", "DistillBatch", "Example", "build_batch", "micro_batches", "score_completions"]
