"""Models as policies: loading, LoRA, the output layer, the teachers made of them, GGUF files, packaged models."""

from opsd_lab.policies.policy import Policy, add_lora, load_policy
from opsd_lab.policies.teachers import OtherTeacher, ema_teacher, fixed_teacher, live_teacher, refreshed_teacher

__all__ = ["OtherTeacher", "Policy", "add_lora", "ema_teacher", "fixed_teacher", "live_teacher", "load_policy", "refreshed_teacher"]
