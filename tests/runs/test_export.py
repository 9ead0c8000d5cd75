"""A run of the paper's recipe on a small Qwen3, through every line of it: trained, exported, and loaded back as the same function."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from opsd_lab.__main__ import main
from opsd_lab.commands.train import read_plan
from opsd_lab.grading import Grader
from opsd_lab.policies.policy import load_policy
from opsd_lab.runs import Run
from opsd_lab.runs.building import build, policy_of
from opsd_lab.runs.export import export, model_of
from opsd_lab.runs.plan import plan_from_toml, plan_to_toml
from opsd_lab.training.checkpoints import load_weights
from tests.chat_templates import FAMILIES
from tests.conftest import PROBLEMS, byte_tokenizer


def command(*arguments):
    before, sys.argv = sys.argv, ["opsd-lab", *map(str, arguments)]
    try:
        main()
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of the recipe for Qwen3-1.7B, with a small model and few short rollouts in the place of large ones."""
    folder = tmp_path_factory.mktemp("qwen3")
    family = next(family for family in FAMILIES if family.name == "Qwen3")
    tokenizer = family.tokenizer(byte_tokenizer().backend_tokenizer)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16}
    torch.manual_seed(0)
    config = Qwen3Config(vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=2048, **sizes)
    config.eos_token_id = tokenizer.eos_token_id
    Qwen3ForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = [{"problem": p.question, "solution": p.solution, "Answer": p.answer} for p in PROBLEMS]
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = [f"model.name={folder / 'model'}", "model.engine=transformers", "steps=4", "rollouts=4"]
    changes += [f"data.train={folder / 'train.jsonl'}", f"data.validation={folder / 'test.jsonl'}"]
    changes += ["data.columns.question=problem", "data.columns.answer=Answer"]
    changes += ["sampling.max_new_tokens=8", "probe.sampling.max_new_tokens=8", "probe.every=2", "keep.checkpoint_every=2"]
    changes += ["training.learning_rate=1e-2", "probe.problems=3"]
    command("train", "qwen3-1.7b", *changes, "--out", folder / "run")
    return folder


def logprobs(policy):
    ids = torch.arange(3, 40, device=policy.device)[None]
    policy.model.eval()
    with torch.no_grad():
        return policy.model(ids).logits.float().log_softmax(-1)


def test_the_papers_recipe_runs_through_every_line(trained):
    run = Run.open(trained / "run")
    plan, shipped = plan_from_toml(run.about["plan"]), read_plan(Path("qwen3-1.7b"))
    assert plan.recipe == shipped.recipe and replace(plan.training, learning_rate=5e-6) == shipped.training
    prompts = run.about["prompts"]
    assert "<think>\n\n</think>" in prompts["student"] and "<think>\n\n</think>" not in prompts["teachers"]["teacher"]
    assert run.steps["step"].tolist() == [1, 2, 3, 4] and list(run.measured) == [2, 4]
    known = run.about["experiment"]
    assert known["objective.pointwise_clip"] == "0.05" and known["training.normalisation"] == "'sequence'"


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_what_is_exported_is_loaded_back_as_the_same_function(trained, tmp_path, form):
    run = Run.open(trained / "run")
    command("export", run.folder, "--out", tmp_path / form, "--form", form)
    plan = plan_from_toml(run.about["plan"])
    own = policy_of(plan.model)
    initial = logprobs(own)
    load_weights(own, run.path("checkpoints", 4))
    found = load_policy(tmp_path / form, dtype=torch.float32)
    assert (logprobs(own) - logprobs(found)).abs().max() < 1e-5 < 1e-3 < (logprobs(own) - initial).abs().max()
    text = (tmp_path / form / "README.md").read_text()
    assert f"library_name: {'peft' if form == 'adapter' else 'transformers'}" in text and "pointwise_clip = 0.05" in text
    assert "| 2 |" in text and "| 4 |" in text and "Step 4 of 4, on 12 problems" in text
    assert found.tokenizer.chat_template == own.tokenizer.chat_template


def test_a_run_in_half_precision_is_exported_in_it_wherever_and_merged_without_rounding(trained, tmp_path):
    plan = plan_to_toml(plan_from_toml(Run.open(trained / "run").about["plan"]))
    (tmp_path / "half.toml").write_text(plan)
    model = AutoModelForCausalLM.from_pretrained(trained / "model", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "model")
    load_policy(trained / "model").tokenizer.save_pretrained(tmp_path / "model")
    options = [
        f"model.name={tmp_path / 'model'}",
        "model.dtype=bfloat16",
        "steps=2",
        "training.learning_rate=1e-3",
        "probe.teacher=false",
    ]
    command("train", tmp_path / "half.toml", *options, "--out", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    of = plan_from_toml(run.about["plan"])
    elsewhere = replace(of, model=replace(of.model, dtype="auto", device="a device that is not here"))
    assert model_of(run, elsewhere) == replace(of.model, dtype="bfloat16", device=None)
    for form in ("adapter", "merged"):
        export(run, tmp_path / form, form)
    exact, merged = (load_policy(tmp_path / form, dtype=torch.float32) for form in ("adapter", "merged"))
    assert merged.model.dtype == torch.float32 and (logprobs(exact) - logprobs(merged)).abs().max() < 1e-5
    initial = load_policy(tmp_path / "model", dtype=torch.float32)
    assert (logprobs(initial) - logprobs(merged)).abs().max() > 1e-4


def test_an_exported_adapter_trains_on_from_the_command_line(trained, tmp_path):
    export(Run.open(trained / "run"), tmp_path / "adapter")
    (tmp_path / "more.toml").write_text(plan_to_toml(plan_from_toml(Run.open(trained / "run").about["plan"])))
    options = [f"model.name={tmp_path / 'adapter'}", "steps=1", "probe.teacher=false"]
    command("train", tmp_path / "more.toml", *options, "--out", tmp_path / "run")
    run = Run.open(tmp_path / "run")
    before, after = load_policy(tmp_path / "adapter", dtype=torch.float32), policy_of(plan_from_toml(run.about["plan"]).model)
    assert (logprobs(before) - logprobs(after)).abs().max() < 1e-6  # it begins where the adapter ended
    load_weights(after, run.path("checkpoints", 1))
    assert (logprobs(before) - logprobs(after)).abs().max() > 1e-4
    plan = plan_from_toml(run.about["plan"])
    with Grader() as grader, pytest.raises(ValueError, match=r"is a LoRA, which trains on with model.trains=lora"):
        build(replace(plan, model=replace(plan.model, trains="all")), grader)


def test_a_step_is_chosen_by_a_word_or_its_number(trained, tmp_path):
    run = Run.open(trained / "run")
    export(run, tmp_path / "two", which="2")
    assert "Step 2 of 4" in (tmp_path / "two" / "README.md").read_text()
    export(run, tmp_path / "best", which="best")
    with pytest.raises(ValueError, match="has no checkpoint of step '3'; there are 2, 4"):
        export(run, tmp_path / "three", which="3")
    with pytest.raises(FileExistsError, match="is there already; name another folder"):
        export(run, tmp_path / "two")


def test_a_model_that_has_changed_since_is_refused(trained, tmp_path):
    run, path = Run.open(trained / "run"), trained / "model" / "model.safetensors"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-4] + bytes(b ^ 64 for b in content[-4:]))
        with pytest.raises(ValueError, match="belongs to another model: the model's weights"):
            export(run, tmp_path / "changed")
    finally:
        path.write_bytes(content)
    assert not (tmp_path / "changed").exists()
