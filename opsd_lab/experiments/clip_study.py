"""Whether a point-wise clip of forward KL leaves the teacher's direction, and what training with it does: by clip and by view."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from opsd_lab.contexts import ChatFormat, ContextBuilder, View, bare_solution, no_privilege
from opsd_lab.contexts.views import OtherProblem
from opsd_lab.diagnostics.estimates import Estimates, prepare
from opsd_lab.divergences import forward_kl
from opsd_lab.experiments.arms import RATES, SMOLLM2_RATES, sandbox_study, smollm2_study
from opsd_lab.objectives import OPSD
from opsd_lab.policies.policy import Policy
from opsd_lab.policies.teachers import fixed_teacher
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import HFSampler, SamplingParams, sample_rollouts
from opsd_lab.studies.results import arm_table, final_rows
from opsd_lab.studies.study import Study
from opsd_lab.supervision import build_examples, score_rollouts
from opsd_lab.training.clipping import COSINE, ClipMeasured, clip_cosine_of_weights
from opsd_lab.training.recipes import Recipe

CLIPS = (0.05, 1e-3, 1e-6, 1e-7)
NOISE = 1e-6  # nats: below it, a divergence between two passes over the same text is rounding
SLOW = 5e-5  # a second rate for the sandbox: at the first one even rounding moves the student far
TRAINED = (None, 0.05, 1e-3, 1e-6)  # None: no clip
VIEWS: dict[str, View] = {"reference": bare_solution, "other problem": OtherProblem(closing=""), "none": no_privilege}


def clip_rows(
    policy: Policy, problems: list[Problem], donors: list[Problem], chat: ChatFormat, sampling: SamplingParams, name: str
) -> pd.DataFrame:
    """Return how each clip turns forward KL's gradient on the policy's own rollouts, under each of `VIEWS`.

    One row per view and clip: model, view, clip, the estimate of the mean cosine between clipped and unclipped gradient by the
    student's logits (over problems), `clipped`, the share of tokens of which the clip took something, and `weights`, the cosine in
    the trainable weights. Tokens on which both sides differ by rounding alone (`NOISE`) have no direction and do not count. Without
    a view these are all, and the estimates are NaN.

    Args:
        policy: the student, and the teacher.
        problems: what it writes about, one rollout each.
        donors: whose solutions the control shows.
        chat: the format of both sides.
        sampling: how rollouts are drawn.
        name: what the rows call the model.
    """
    plain = ContextBuilder(policy.tokenizer, no_privilege, student=chat, teacher=chat)
    rollouts = sample_rollouts(HFSampler(policy, progress=False), plain, problems, sampling)
    views, found = {**VIEWS, "other problem": OtherProblem(donors, closing="")}, []
    for view, clip in tqdm([(view, clip) for view in views for clip in CLIPS], desc=f"clips, {name}"):
        contexts = replace(plain, view=views[view])
        examples, objective = build_examples(contexts, problems, rollouts), OPSD(forward_kl, pointwise_clip=clip)
        table = score_rollouts(policy, fixed_teacher(policy), ClipMeasured(objective), examples, progress=False)
        rows, estimates = prepare(table, "clip_rows"), Estimates(["model", "view", "clip"])
        cosines = rows.frame[COSINE].to_numpy()
        counted = np.isfinite(cosines) & ((rows.frame["divergence"] + rows.frame["clipped"]).to_numpy() > NOISE)
        estimates.add((name, view, clip), rows.units, np.nan_to_num(cosines), counted)
        clipped, weights = float((table.frame["clipped"] > 0).mean()), float("nan")
        if counted.any():
            weights = clip_cosine_of_weights(policy, fixed_teacher(policy), objective, examples)
        found.append(estimates.frame().assign(clipped=clipped, weights=weights))
    return pd.concat(found, ignore_index=True)


def clip_table() -> pd.DataFrame:
    """Return `clip_rows` of SmolLM2 on word problems and of the sandbox's model on worksheets, 64 rollouts each."""
    rows = []
    for name, study in (("SmolLM2", smollm2_study()), ("sandbox", sandbox_study())):
        problems = list(study.train)[:64]
        rows.append(clip_rows(study.policy(0), problems, list(study.train), study.chat, replace(study.sampling, n=1), name))
    return pd.concat(rows, ignore_index=True)


def clip_name(clip: float | None) -> str:
    """Return "clip 0.05", or "no clip" for None."""
    return "no clip" if clip is None else f"clip {clip:g}"


def clip_arm(view: str, clip: float | None) -> str:
    """Return the name of the arm that trains with a clip (None: without one) under one of `VIEWS`."""
    return f"{view}, {clip_name(clip)}"


def context_effects(results: pd.DataFrame) -> pd.DataFrame:
    """Return by how much training with the reference solution ends above training with another problem's, at each clip.

    One row per clip of `TRAINED`, by its `clip_name`: the difference of the accuracies, over seeds and problems (`paired_crossed`).
    `results` is the table of `clip_sandbox` or `clip_smollm2`.

    Raises:
        ValueError: when an arm has no finished cell.
    """
    found = []
    for clip in TRAINED:
        reference, other = clip_arm("reference", clip), clip_arm("other problem", clip)
        row = arm_table(results, other, order=[other, reference]).set_index("arm").loc[reference]
        numbers = dict(zip(("mean", "low", "high"), row[["difference", "difference_low", "difference_high"]], strict=True))
        problems = int(final_rows(results)["n"].max())
        found.append({"clip": clip_name(clip), **numbers, "n": problems, "unit": "problems"})
    return pd.DataFrame(found)


def _arms(rate: float, views: Mapping[str, View]) -> dict[str, Recipe | None]:
    arms: dict[str, Recipe | None] = {"base": None}
    for view, shown in views.items():
        for clip in TRAINED:
            arms[clip_arm(view, clip)] = Recipe(OPSD(forward_kl, pointwise_clip=clip), shown, training={"learning_rate": rate})
    return arms


def clip_sandbox(rate: float = RATES["OPSD, forward KL"]) -> Study:
    """Return the study of forward KL with each clip under each view on worksheets; the rate that it has suits it without a clip."""
    return replace(sandbox_study(arms={}), name="clip sandbox", arms=_arms(rate, VIEWS))


def clip_smollm2() -> Study:
    """Return the same on SmolLM2 with the walkthrough's problems."""
    return replace(smollm2_study(), name="clip smollm2", arms=_arms(SMOLLM2_RATES["OPSD"], VIEWS))
