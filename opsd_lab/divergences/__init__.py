"""How far apart student and teacher are, per token: formulas, the options around them, and exact losses a few tokens at a time."""

from opsd_lab.divergences.divergence import Compared, Divergence, Entries, Support, Tail, compare, relative
from opsd_lab.divergences.fused import Computed, fused_losses
from opsd_lab.divergences.kullback_leibler import JSD, ForwardKL, Renyi, ReverseKL, SkewedKL, forward_kl, jsd, reverse_kl
from opsd_lab.divergences.side import Side

__all__ = [
    "JSD",
    "Compared",
    "Computed",
    "Divergence",
    "Entries",
    "ForwardKL",
    "Renyi",
    "ReverseKL",
    "Side",
    "SkewedKL",
    "Support",
    "Tail",
    "compare",
    "forward_kl",
    "fused_losses",
    "jsd",
    "relative",
    "reverse_kl",
]
