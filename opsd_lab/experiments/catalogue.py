"""The studies by the names that the command line takes."""

from collections.abc import Callable
from functools import partial

from opsd_lab.experiments import arms, clip_study, coder_study, family
from opsd_lab.studies.study import Study

STUDIES: dict[str, Callable[[], Study]] = {
    "walkthrough": arms.walkthrough_study,
    "sandbox-baselines": arms.sandbox_baselines,
    "sandbox-ablations": arms.sandbox_ablations,
    "sandbox-search": arms.sandbox_search,
    "smollm2": arms.smollm2_study,
    "smollm2-search": arms.smollm2_search,
    "clip-sandbox": clip_study.clip_sandbox,
    "clip-sandbox-slow": partial(clip_study.clip_sandbox, clip_study.SLOW),
    "clip-smollm2": clip_study.clip_smollm2,
    **{f"family-{task}": partial(family.tuned_family, task) for task in family.TASKS},
    "family-search": family.family_search,
    **{f"teachers-{task}": partial(family.teachers_study, task) for task in family.TASKS},
    "coder": coder_study.coder_study,
    "family-smollm2": family.tuned_smollm2,
    "family-smollm2-search": family.family_smollm2_search,
}
