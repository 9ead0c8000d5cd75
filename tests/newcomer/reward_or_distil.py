from opsd_lab import GRPO, OPSD, Route, reverse_kl, rewarded

reward_or_distil = Route(rewarded, GRPO(), OPSD(reverse_kl))
