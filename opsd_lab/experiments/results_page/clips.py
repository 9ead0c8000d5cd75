"""The page's fields about the clip of forward KL: how it turns the gradient, and what training with it does."""

from opsd_lab.experiments.clip_study import TRAINED, VIEWS, clip_arm, clip_name, context_effects
from opsd_lab.experiments.results_page.text import (
    Fields,
    accuracy,
    check,
    markdown,
    read_table,
    seeds_of,
    study_command,
)
from opsd_lab.figures.words import NUMBERS, interval, number
from opsd_lab.studies.results import arm_table, final_rows

SMALL = 1e-6
"""The largest of the clips that the page calls small."""
GONE = 0.01
"""The accuracy below which the page says that nothing is left."""


def clip() -> Fields:
    """Return the fields of the table of clips: the cosine between forward KL's clipped and unclipped gradient."""
    rows = read_table("clip")
    rows = rows[rows["mean"].notna()]
    smollm2 = rows[rows["model"] == "SmolLM2"].set_index(["view", "clip"])
    check(
        "small clips turn SmolLM2's gradient away", (smollm2.loc[smollm2.index.get_level_values("clip") <= SMALL, "high"] < 0).all()
    )
    lines = []
    for (model, view), of_view in rows.groupby(["model", "view"], sort=False):
        for row in of_view.itertuples():
            shown = [
                model,
                view,
                f"{row.clip:g}",
                interval(row.mean, row.low, row.high),
                f"{row.clipped:.0%}",
                number(row.weights, 2),
            ]
            lines.append(shown)
    columns = ["model", "view", "clip", "cosine by the logits", "tokens clipped", "cosine in the weights"]
    return {"clip_rollouts": f"{rows['n_rollouts'].max()} rollouts", "clips": markdown(columns, lines)}


def trained_with_clip() -> Fields:
    """Return the fields of the study that trains in the sandbox with each clip under each view."""
    results = read_table("clip_sandbox")
    arms, effects, last = arm_table(results, "base").set_index("arm"), context_effects(results), final_rows(results)
    clipped = arms.loc[[clip_arm(view, clip) for view in VIEWS for clip in TRAINED if clip is not None]]
    check("with a clip nothing is left under any view", clipped["mean"].max() < GONE)
    context = effects.set_index("clip")
    check("without a clip the context decides", context.loc[clip_name(None), "low"] > 0)
    check("no view without a clip changes least", arms["mean"].drop("base").idxmax() == clip_arm("none", None))
    lines = [[view, *(accuracy(arms.loc[clip_arm(view, clip)]) for clip in TRAINED)] for view in VIEWS]
    lines.append(["reference minus other problem", *(interval(*row) for row in effects[NUMBERS].to_numpy())])
    return {
        "clip_sandbox_command": study_command("clip-sandbox", "clip_sandbox", results),
        "clip_sandbox_seeds": seeds_of(results),
        "clip_sandbox_steps": last["step"].max(),
        "clip_sandbox_rate": f"{last['learning_rate'].max():g}",
        "clip_sandbox_base": accuracy(arms.loc["base"]),
        "clip_sandbox_gone": f"{GONE:g}",
        "clip_sandbox": markdown(["view", *map(clip_name, TRAINED)], lines),
    }
