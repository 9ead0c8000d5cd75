"""A text's reasoning steps and which of them are correct. Knows no models."""

from opsd_lab.steps.arithmetic import arithmetic_steps
from opsd_lab.steps.labels import label_first_error, label_steps
from opsd_lab.steps.marks import SegmentNumbers, equation_verdicts, first_error_tokens
from opsd_lab.steps.segmentation import Segment, label_segments, segments
from opsd_lab.steps.step import Step, StepKind, StepLabel
from opsd_lab.steps.tokens import ErrorPhase, error_phases, span_tokens, token_steps

__all__ = [
    "ErrorPhase",
    "Segment",
    "SegmentNumbers",
    "Step",
    "StepKind",
    "StepLabel",
    "arithmetic_steps",
    "equation_verdicts",
    "error_phases",
    "first_error_tokens",
    "label_first_error",
    "label_segments",
    "label_steps",
    "segments",
    "span_tokens",
    "token_steps",
]
