"""How far apart student and teacher are, per token."""

from opsd_lab.divergences.reference import Divergence, forward_kl, jsd, reverse_kl, sampled_token

__all__ = ["Divergence", "forward_kl", "jsd", "reverse_kl", "sampled_token"]
