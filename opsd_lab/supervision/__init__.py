"""What the teacher says about rollouts that exist, under any number of views."""

from opsd_lab.supervision.views import build_examples, score_rollouts, score_views, text_rollout

__all__ = ["build_examples", "score_rollouts", "score_views", "text_rollout"]
