"""How far apart student and teacher are, per token: `reference` says what, `fused` and `terms` compute it fast."""

from opsd_lab.divergences.fused import Tokens, fused_losses, read_columns
from opsd_lab.divergences.reference import Divergence, forward_kl, jsd, reverse_kl, sampled_token
from opsd_lab.divergences.terms import LossTerms, Side, divergence_terms, sampled_token_terms, through_token

__all__ = [
    "Divergence",
    "LossTerms",
    "Side",
    "Tokens",
    "divergence_terms",
    "forward_kl",
    "fused_losses",
    "jsd",
    "read_columns",
    "reverse_kl",
    "sampled_token",
    "sampled_token_terms",
    "through_token",
]
