"""The field's diagnostics of a TokenTable, each a tidy pandas DataFrame with 95 % bounds over problems.

Grouping columns come first, then `mean`, `low`, `high`, `n`, `unit`, then counts, then `note`. `n` counts problems, which is what
`unit` says. Bounds leave one problem out at a time (`opsd_lab.evaluation.jackknife`); they are NaN where nothing can be said, and
`note` says why, or where they are rough. A group without tokens keeps its row, with a NaN mean and counts of 0. Every difference is
the second thing minus the first, and a column or a row's name says which two.
"""

from opsd_lab.diagnostics.alignment import correctness_alignment, result_digits, sign_noise, step_gap, with_outcomes
from opsd_lab.diagnostics.depth_decay import depth_decay
from opsd_lab.diagnostics.divergence import (
    clipping,
    divergence_by_class,
    divergence_by_quarter,
    teacher_mass_outside,
    top_k_overlap,
    top_tokens,
)
from opsd_lab.diagnostics.position import mean_by_position
from opsd_lab.diagnostics.texts import drift, epistemic_markers
from opsd_lab.diagnostics.views import by_view, compare_views, teacher_contrast

__all__ = [
    "by_view",
    "clipping",
    "compare_views",
    "correctness_alignment",
    "depth_decay",
    "divergence_by_class",
    "divergence_by_quarter",
    "drift",
    "epistemic_markers",
    "mean_by_position",
    "result_digits",
    "sign_noise",
    "step_gap",
    "teacher_contrast",
    "teacher_mass_outside",
    "top_k_overlap",
    "top_tokens",
    "with_outcomes",
]
