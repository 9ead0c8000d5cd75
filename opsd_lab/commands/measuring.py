"""What is measured on models as they are, for the project's evidence and for any model: the premise, and what a teacher says."""

import re
from functools import partial
from pathlib import Path

from opsd_lab.basics.files import write_whole
from opsd_lab.diagnostics.first_wrong_step import first_wrong_step
from opsd_lab.experiments import RESULTS
from opsd_lab.experiments.clip_study import clip_table
from opsd_lab.grading import Grader
from opsd_lab.policies.policy import load_policy
from opsd_lab.problems.opening import open_problems
from opsd_lab.rollouts import HFSampler, SamplingParams


def clip(out: Path = RESULTS / "clip.parquet") -> None:
    """Measure how a point-wise clip turns forward KL's gradient on SmolLM2's and the sandbox's rollouts; write and print the table.

    Args:
        out: the Parquet file.
    """
    rows = clip_table()
    write_whole(out, partial(rows.to_parquet, index=False, compression="zstd"))
    print(rows.round(3).to_string(index=False))


def champ(
    model: str = "smollm2-135m-instruct",
    out: Path | None = None,
    problems: int | None = None,
    compared: int = 60,
    dtype: str = "auto",
) -> None:
    """Score CHAMP's annotated solutions under the reference and another problem's, and those of some problems under every view.

    Writes the means of each step, and prints how well they find the first wrong one. The extra `champ` brings the data. The file
    grows by a few problems at a time: interrupted, the same command goes on where it stopped.

    Args:
        model: a hub id, a folder, a GGUF file, or a packaged model.
        out: the Parquet file to write; it holds numbers and no text of the solutions. Left out, build/champ_MODEL.parquet.
        problems: of how many problems, drawn with a seed, both solutions are scored; left out, of all 270.
        compared: for how many problems all views are compared.
        dtype: what the model computes in, such as float32; left out, as `load_policy` chooses.
    """
    from opsd_lab.experiments.champ_study import champ_views, measure_champ, with_all_views
    from opsd_lab.problems.champ import champ_problems, champ_solutions

    every, path = champ_problems(), out or Path("build") / f"champ_{file_name(model)}.parquet"
    views = champ_views(every)
    both = {view: views[view] for view in ("reference", "other problem")}
    plan = {"all": (every if problems is None else with_all_views(every, problems), both)}
    if compared:
        plan["compared"] = with_all_views(every, compared), views
    rows = measure_champ(load_policy(model, dtype=dtype), plan, champ_solutions(), path, model=model)
    for view, of in rows[rows["scope"] == "all"].groupby("view", sort=False):
        print(view, first_wrong_step(of.reset_index(drop=True)).round(3).to_string(index=False), sep="\n")


def file_name(model: str) -> str:
    """Return a model's name as a part of a file's."""
    return re.sub(r"[^\w.-]+", "_", model)


def premise(
    model: str = "smollm2-135m-instruct",
    out: Path | None = None,
    sets: tuple[str, ...] = (),
    count: int = 32,
    n: int = 4,
    max_new_tokens: int = 768,
    chunk: int = 8,
    token_budget: int | None = None,
    dtype: str = "auto",
) -> None:
    """Measure how well a model answers the same problems under each privileged view; write every verdict and print the table.

    The extras `champ` and `reasoning-gym` bring the data. The file grows by a few problems at a time: interrupted, the same command
    goes on where it stopped.

    Args:
        model: a hub id, a folder, a GGUF file, or a packaged model.
        out: the Parquet file to write; it holds verdicts and no text. Left out, build/premise_MODEL.parquet.
        sets: of one_step, two_step, CHAMP and reasoning-gym's tasks; left out, all.
        count: how many problems of each set.
        n: answers for each problem under each view.
        max_new_tokens: how long an answer may be.
        chunk: how many problems are answered at once, under all views, before the file is written.
        token_budget: how many tokens are written side by side, prompts and padding included; left out, as `HFSampler` chooses.
        dtype: what the model computes in, such as float32; left out, as `load_policy` chooses.
    """
    from opsd_lab.experiments.premise import SETS, Premise, measure_premise, premise_table

    path = out or Path("build") / f"premise_{file_name(model)}.parquet"
    wanted = Premise(sets or tuple(SETS), count, SamplingParams(max_new_tokens, temperature=0.7, n=n), chunk=chunk)
    policy = load_policy(model, dtype=dtype)
    sampler = HFSampler(policy, token_budget, progress=False)
    with Grader() as grader:
        rows = measure_premise(policy, wanted, grader, path, model=model, sampler=sampler)
    print(premise_table(rows).drop(columns=["n", "unit", "note"]).round(2).to_string(index=False))


def solutions(
    model: str = "coder-0.5b",
    data: str = "gym:gsm_symbolic/1/64",
    out: Path | None = None,
    n: int = 2,
    max_new_tokens: int = 320,
    parts: Path = Path("build/solutions"),
    dtype: str = "auto",
) -> None:
    """Measure what a teacher says of the solutions that a model writes itself: at its first wrong step, and at sound steps after it.

    Interrupted, the same command goes on where it stopped.

    Args:
        model: a hub id, a folder, a GGUF file, or a packaged model.
        data: the problems, by a name that a recipe file takes; they need solutions.
        out: the Parquet file to write. Left out, build/solutions_MODEL.parquet.
        n: solutions of each problem.
        max_new_tokens: how long a solution may be.
        parts: the folder for the rollouts and finished parts of the scoring.
        dtype: what the model computes in, such as float32; left out, as `load_policy` chooses.
    """
    from opsd_lab.experiments.own_solutions import own_solutions

    name, sampling = file_name(model), SamplingParams(max_new_tokens, temperature=1.0, n=n)
    policy = load_policy(model, dtype=dtype)
    rows = own_solutions(policy, open_problems(data)[0], sampling, parts / name).assign(model=model, data=data)
    path = out or Path("build") / f"solutions_{name}.parquet"
    write_whole(path, partial(rows.to_parquet, index=False, compression="zstd"))
    told = rows[(rows["per"] == "token") & (rows["column"] == "gap") & rows["label"].isin(["correct", "incorrect"])]
    print(told[["view", "label", "error_phase", "mean", "low", "high", "n", "n_steps"]].round(3).to_string(index=False))
