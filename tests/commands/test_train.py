"""`opsd-lab train`: plans as TOML, dry runs, runs that are gone on with, and one clear line for whatever is asked wrongly."""

import json
import re
import signal
import sys
import tomllib
from pathlib import Path

import pytest

from opsd_lab.__main__ import main
from opsd_lab.basics.schedules import Cosine
from opsd_lab.commands.memory import available, check_memory, needed
from opsd_lab.commands.train import read_plan
from opsd_lab.contexts import bare_solution, reference_solution
from opsd_lab.objectives import OPSD
from opsd_lab.problems.word_problems import builtin
from opsd_lab.runs import Run
from opsd_lab.runs.building import apart
from opsd_lab.runs.plan import plan_from_toml, plan_to_toml

SMALL = ("sandbox", "steps=2", "rollouts=4", "data.train=sandbox:sheet/train/16", "probe.every=2", "probe.problems=2")
RECIPES = sorted(path.stem for path in (Path(__file__).parents[2] / "opsd_lab" / "commands" / "recipes").glob("*.toml"))


def call(monkeypatch, *arguments):
    """Call the command line; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["opsd-lab", *map(str, arguments)])
    try:
        main()
    except SystemExit as error:
        return error.code or 0
    return 0


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_file_that_ships_comes_back_from_its_whole_text_equal(name):
    plan = read_plan(Path(name))
    text = plan_to_toml(plan)
    assert plan_from_toml(text) == plan and plan_to_toml(plan_from_toml(text)) == text
    assert isinstance(plan.recipe.objective, OPSD) and (plan.data.validation or plan.data.held_out)
    assert plan.recipe.view in (reference_solution, bare_solution), "the teacher of a recipe sees the solution"


def test_a_teacher_that_sees_nothing_is_told_before_and_in_the_run(monkeypatch, tmp_path, capsys):
    view = "recipe.view={piece='no_privilege'}"
    assert call(monkeypatch, "train", *SMALL, view, "--out", tmp_path / "a", "--dry-run") == 0
    told = "the teacher sees nothing that the student does not: unless that is meant as a control, name a view in the recipe"
    assert told in capsys.readouterr().out
    assert call(monkeypatch, "train", *SMALL, view, "--out", tmp_path / "a") == 0
    assert f"warning: {told}" in capsys.readouterr().err
    (event,) = [row for row in Run.open(tmp_path / "a").events.to_dict("records") if row["kind"] == "warning" and told in row["text"]]
    assert event["step"] == 0
    remedy = re.search(r"such as (\S+)$", event["text"])[1]
    assert read_plan(Path("sandbox"), (remedy,)).recipe.view is reference_solution


def test_the_papers_recipes_have_the_papers_numbers():
    for size, clip in (("1.7b", 0.05), ("4b", 0.05), ("8b", 0.06)):
        plan = read_plan(Path(f"qwen3-{size}"))
        assert (plan.recipe.objective.pointwise_clip, plan.recipe.objective.temperature) == (clip, 1.1)
        assert (plan.model.rank, plan.model.alpha, plan.rollouts, plan.training.learning_rate) == (64, 128, 32, 5e-6)
        assert (plan.training.max_grad_norm, plan.sampling.max_new_tokens, plan.steps) == (0.1, 1024, 100)
        assert (plan.chat.enable_thinking, plan.teacher_chat.enable_thinking, plan.evaluation_chat.enable_thinking) == (
            False,
            True,
            True,
        )
        assert plan.probe.sampling["n"] == 12 and plan.probe.sampling["max_new_tokens"] == 38912


def test_changes_go_into_the_plan_and_methods_stand_for_recipes():
    plan = read_plan(Path("sandbox"), ("training.learning_rate={piece='Cosine', start=1e-3, end=0.0, steps=9}", "stop.patience=2"))
    assert plan.training.learning_rate == Cosine(1e-3, 0.0, 9) and plan.stop.patience == 2
    assert plan_from_toml(plan_to_toml(plan)) == plan
    text = 'steps = 1\n[data]\ntrain = "builtin:one_step/train"\n[recipe]\nmethod = "reason_first"\nmax_new_tokens = 9\n'
    assert plan_from_toml(text).recipe.view.max_new_tokens == 9


def test_a_dry_run_shows_the_plan_both_prompts_and_what_it_would_take_and_writes_nothing(monkeypatch, tmp_path, capsys):
    assert call(monkeypatch, "train", *SMALL, "--out", tmp_path / "run", "--dry-run") == 0
    told = capsys.readouterr().out
    head = told[told.index("steps = 2") : told.index("The student reads")]
    assert tomllib.loads(head)["recipe"]["objective"]["divergence"]["piece"] == "ReverseKL"
    teacher = told[told.index("The teacher reads") :]
    assert re.search(r"^▶ Here is a verified solution:$", teacher, re.M) and "▶" not in told[: told.index("The teacher reads")]
    for text in ("16 problems; a step takes 4 problems", "tokens in the middle", "numbers train", "one step took", "GiB of memory"):
        assert text in told, told
    assert not (tmp_path / "run").exists()


def test_a_run_is_trained_told_and_gone_on_with(monkeypatch, tmp_path, capsys):
    assert call(monkeypatch, "train", *SMALL, "--out", tmp_path / "run") == 0
    told = capsys.readouterr().out
    assert "2 steps in" in told and "at the last" in told and "step 2: accuracy" in told
    assert call(monkeypatch, "train", *SMALL[:1], "steps=3", *SMALL[2:], "--out", tmp_path / "run") == 0
    run = Run.open(tmp_path / "run")
    assert run.steps["step"].tolist() == [1, 2, 3] and run.events["text"].tolist().count("from step 2") == 1
    plan = plan_from_toml(run.about["plan"])
    assert (plan.steps, plan.rollouts) == (3, 4) and "16 of 16 rows" in run.about["data"][0]


def test_ctrl_c_ends_with_a_line_and_code_130(monkeypatch, tmp_path, capsys):
    from opsd_lab.commands import train as command

    monkeypatch.setattr(command, "_tell", lambda run, step: signal.raise_signal(signal.SIGINT))
    assert call(monkeypatch, "train", *SMALL, "--out", tmp_path / "run") == 130
    assert "interrupted after step 1; the same command goes on" in capsys.readouterr().err
    monkeypatch.undo()
    assert call(monkeypatch, "train", *SMALL, "--out", tmp_path / "run") == 0


def test_some_problems_are_held_out_for_measuring(monkeypatch, tmp_path, capsys):
    problems = builtin("one_step", "train")[:12]
    held, other = (apart(problems, 4, seed)[1] for seed in (0, 1))
    kept, again = apart(problems, 4, 0)
    assert held == again != other and sorted(kept + held, key=problems.index) == problems and len(held) == 4
    plan = read_plan(Path("sandbox"), ("data.train=sandbox:sheet/train/16", "steps=1", "probe.every=1", "rollouts=4"))
    text = plan_to_toml(plan).replace('validation = "sandbox:sheet/validation/64"\n', "held_out = 4\n").replace("held_out = 0\n", "")
    (tmp_path / "own.toml").write_text(text)
    assert call(monkeypatch, "train", tmp_path / "own.toml", "--out", tmp_path / "run") == 0
    assert "accuracy on 4 problems that were held out" in capsys.readouterr().out
    assert call(monkeypatch, "train", tmp_path / "own.toml", "probe.problems=3", "--out", tmp_path / "few") == 0
    assert "accuracy on 3 problems that were held out" in capsys.readouterr().out
    assert Run.open(tmp_path / "run").about["problems"] == 12


def test_what_is_said_of_the_probes_sampling_leaves_the_rest_of_it_greedy():
    plan = read_plan(Path("smollm2"), ("probe.sampling.max_new_tokens=256",))
    assert plan.probe.drawn == {"temperature": 0.0, "n": 1, "max_new_tokens": 256}
    for name in ("seed", "temprature"):
        with pytest.raises(ValueError, match=rf"probe\.sampling: '{name}' is none of .*max_new_tokens.*; the seed is the plan's"):
            read_plan(Path("smollm2"), (f"probe.sampling.{name}=1",))


FILES = {
    "broken.toml": "steps = ",
    "latin.toml": "# é".encode("latin-1"),
    "none.csv": "question,answer\n,\n",
    "columns.csv": "prompt,target\n1 + 1?,2\n",
    "config.json": json.dumps({"model_type": "nothing"}),
    "bad.gguf": b"GGUF" + bytes(36),
    "empty.csv": "",
}
WRONG = {
    "no such file": (["nowhere.toml"], "there is no recipe file nowhere.toml; those that ship are qwen3-1.7b"),
    "no TOML": (["broken.toml"], "broken.toml: this is no TOML"),
    "no UTF-8": (["latin.toml"], "latin.toml is no TOML: it is not UTF-8 text"),
    "unknown key": (
        ["sandbox", "training.learning_rat=1"],
        "learning_rat: there is no such key; did you mean 'learning_rate'?",
    ),
    "unknown section": (["sandbox", "modle.name=x"], "modle: there is no such key; did you mean 'model'?"),
    "unknown method": (["sandbox", "recipe.method=opsd_cliped"], "there is no method 'opsd_cliped'; did you mean 'opsd_clipped'?"),
    "unknown piece": (["sandbox", "recipe.view={piece='refrence'}"], "recipe.view: there is no piece 'refrence'"),
    "no change": (["sandbox", "steps"], "'steps' is no change; write it as"),
    "wrong type": (["sandbox", "steps=many"], "steps takes a whole number of at least 1, not 'many'"),
    "wrong type inside": (["sandbox", "training.learning_rate=fast"], "TrainingParams.learning_rate takes a number"),
    "no precision": (["sandbox", "model.dtype=float"], "model.dtype is out of range: 'float'; it is 'auto' or 'float32'"),
    "table for a number": (["sandbox", "sampling=3"], "sampling is 3, not a table of values"),
    "out of range": (["sandbox", "sampling.temperature=-1"], "SamplingParams.temperature is out of range"),
    "follows from others": (
        ["sandbox", "training.batch_size=3"],
        "batch_size follows from rollouts and recipe.n; set those",
    ),
    "pieces that do not fit": (
        ["sandbox", "recipe.method=rlsd", "rollouts=12"],
        "12 rollouts a step cannot be shared out 8 to",
    ),
    "too few for groups": (["sandbox", "recipe.objective={piece='GRPO'}"], "compares the rollouts of a problem with each other"),
    "no data": (["sandbox", "data.train=nowhere.jsonl"], "there is no file nowhere.jsonl"),
    "no source": (["sandbox", "data.train=hello"], "'hello' is no source of problems"),
    "no worksheets": (["sandbox", "data.train=sandbox:sheet"], "names no worksheets; write task, split and number"),
    "held out twice": (["sandbox", "data.held_out=2"], "data.held_out is for where data.validation names no problems"),
    "no problem in it": (["sandbox", "data.train=none.csv"], "there is no problem left"),
    "other columns": (
        ["sandbox", "data.train=columns.csv"],
        "say which is the question and which the answer",
    ),
    "no model": (["sandbox", "model.name=nowhere/nothing"], "nowhere/nothing"),
    "no model's folder": (["sandbox", "model.name=."], "nothing"),
    "no GGUF file": (["sandbox", "model.name=bad.gguf"], "bad.gguf (40 bytes) is cut off or corrupt"),
    "no device": (["sandbox", "model.device=xpu:7"], "the device 'xpu:7' cannot be used"),
    "empty file": (["sandbox", "data.train=empty.csv"], "empty.csv has no columns"),
    "no room": (["sandbox", "sampling.max_new_tokens=100000"], "leaves no room for a prompt"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_asked_wrongly_is_one_clear_line_and_code_2(name, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # asking it takes long where there is none
    for file, content in FILES.items():
        Path(file).write_bytes(content if isinstance(content, bytes) else content.encode())
    arguments, told = WRONG[name]
    assert call(monkeypatch, "train", *arguments, "--out", "run") == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("opsd-lab: ")]
    assert told in error and "Traceback" not in error
    assert line == error.splitlines()[-1] or "none.csv" in line  # the report of a file's rows has several
    assert not Path("run", "run.json").exists()


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_loaded(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert call(monkeypatch, "train", *SMALL, "--out", tmp_path / "file") == 2
    assert re.search(r"opsd-lab: .*file", capsys.readouterr().err)


def test_a_model_that_is_too_large_is_found_before_it_is_loaded(tmp_path):
    from transformers import Qwen3Config

    config = Qwen3Config(vocab_size=1000, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    plan = read_plan(Path("sandbox"), ("model.dtype=float32",))
    small = needed(plan, config)
    from transformers import Qwen3ForCausalLM

    numbers = sum(p.numel() for p in Qwen3ForCausalLM(config).parameters())
    assert numbers * 4 < small.weights < numbers * 8 and small.training > 0
    huge = Qwen3Config(vocab_size=150000, hidden_size=65536, intermediate_size=262144, num_hidden_layers=80, num_attention_heads=128)
    huge.save_pretrained(tmp_path)
    assert needed(plan, huge).total > available("cpu")
    with pytest.raises(ValueError, match=r"needs at least [\d.]+ GiB here .* are free on c.*; take a smaller model"):
        check_memory(read_plan(Path("sandbox"), (f"model.name={tmp_path}",)))
