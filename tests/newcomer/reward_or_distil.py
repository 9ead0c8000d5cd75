from opsd_lab import GRPO, OPSD, reverse_kl
from opsd_lab.objectives import Route, rewarded

reward_or_distil = Route(rewarded, GRPO(), OPSD(reverse_kl))
