import json

import pytest
import torch
from peft import PrefixTuningConfig, PromptTuningConfig
from transformers import ByT5Tokenizer

from opsd_lab.policies.head import check_head
from opsd_lab.policies.policy import Policy, add_lora, check_trainable, has_fresh_lora, load_policy
from opsd_lab.policies.teachers import AdapterOffTeacher, AveragedTeacher, ema_teacher, fixed_teacher, live_teacher
from opsd_lab.rollouts import HFSampler, SamplingParams
from opsd_lab.scoring.forward import score_completions
from tests.adapters import ADAPTERS, MORE_ADAPTERS, in_a_plain_model, lora, lora_config, with_config
from tests.conftest import byte_tokenizer, tiny_policy

IDS = torch.arange(10)[None]


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(input_ids=IDS.to(policy.device)).logits


def disturb(policy: Policy, amount: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in policy.trainable().values():
            p += amount * torch.randn(p.shape, generator=generator).to(p)


@pytest.fixture(params=["lora", "full"])
def any_policy(request) -> Policy:
    return add_lora(tiny_policy(), rank=4) if request.param == "lora" else tiny_policy()


def test_a_fresh_lora_changes_nothing_and_is_the_same_for_the_same_seed():
    plain = logits(tiny_policy())
    first, again, other = (add_lora(tiny_policy(), rank=4, seed=s) for s in (1, 1, 2))
    torch.testing.assert_close(logits(first), plain, atol=0, rtol=0)
    pairs = list(zip(first.trainable().values(), again.trainable().values(), other.trainable().values(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs) and not all(torch.equal(a, c) for a, _, c in pairs)
    assert all("lora_" in name for name in first.trainable())


def test_adding_a_lora_leaves_the_global_random_state_alone():
    base = tiny_policy()
    before = torch.random.get_rng_state()
    add_lora(base, seed=5)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("wrapped", [True, False], ids=["in peft's wrapper", "in a plain model"])
def test_a_second_lora_is_refused(wrapped):
    policy = lora(tiny_policy()) if wrapped else in_a_plain_model(tiny_policy())
    before = logits(policy)
    with pytest.raises(ValueError, match=r"has a LoRA already, which trains on.*merge_and_unload"):
        add_lora(policy)
    torch.testing.assert_close(logits(policy), before, atol=0, rtol=0)


def test_the_policy_that_add_lora_was_given_is_refused_wherever_it_is_used():
    base = tiny_policy()
    add_lora(base)
    for use in (
        lambda: HFSampler(base, progress=False).sample([[1, 2]], SamplingParams(2)),
        lambda: logits(base),
        lambda: fixed_teacher(base),
        lambda: check_head(base),
        lambda: add_lora(base),
    ):
        with pytest.raises(ValueError, match=r"use the policy that add_lora returned.*load it once more"):
            use()


def test_a_lora_added_to_half_precision_trains_in_float32():
    base = tiny_policy()
    base.model.to(torch.bfloat16)
    assert {p.dtype for p in add_lora(base).trainable().values()} == {torch.float32}


@pytest.fixture
def saved(tmp_path):
    """A trained LoRA on disk, and its policy."""
    tiny_policy().model.save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    policy = add_lora(load_policy(tmp_path / "base", device="cpu"), rank=4)
    disturb(policy)
    policy.model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", policy


def test_a_lora_from_disk_is_the_trained_one_and_trains_on(saved):
    folder, before = saved
    policy = load_policy(folder, device="cpu")
    torch.testing.assert_close(logits(policy), logits(before), atol=1e-5, rtol=0)
    assert policy.trainable().keys() == before.trainable().keys() and policy.name == str(folder.parent / "base")
    check_trainable(policy)


def test_the_tokenizer_beside_a_lora_counts_where_there_is_one(saved):
    folder, _ = saved
    assert load_policy(folder, device="cpu").tokenizer.chat_template == byte_tokenizer().chat_template
    byte_tokenizer("{{ 'another template' }}").save_pretrained(folder)
    assert load_policy(folder, device="cpu").tokenizer.chat_template == "{{ 'another template' }}"


@pytest.mark.parametrize(("named", "message"), [(None, "does not name the model"), ("/nowhere/at/all", "cannot be loaded")])
def test_a_lora_whose_model_is_not_to_be_found_is_refused_with_the_remedy(saved, named, message):
    folder, _ = saved
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": named}))
    with pytest.raises(ValueError, match=f"{message}.*base_model_name_or_path of adapter_config.json"):
        load_policy(folder, device="cpu")


@pytest.mark.parametrize("part", ["the model", "one layer"])
def test_dropout_never_acts_whoever_switches_it_on(part):
    policy = lora(tiny_policy(), lora_dropout=0.5)
    assert not policy.model.training
    expected = logits(policy)
    layer = policy.causal_lm.get_decoder().layers[0]
    ids, length, mask = (x.to(policy.device) for x in (IDS, torch.tensor([2]), torch.ones(1, 8).bool()))
    for compute in (
        lambda: score_completions(policy, ids, length, mask).logits(),
        lambda: check_head(policy),
        lambda: HFSampler(policy, progress=False).sample([[1, 2]], SamplingParams(2)),
    ):
        (policy.model if part == "the model" else layer).train()
        compute()
        torch.testing.assert_close(logits(policy), expected, atol=0, rtol=0)


def frozen(policy: Policy) -> Policy:
    policy.model.requires_grad_(False)
    return policy


def inactive(policy: Policy) -> Policy:
    policy = lora(policy)
    policy.model.add_adapter("second", lora_config())
    policy.model.set_adapter("second")
    policy.model.set_requires_grad("default", True)
    return policy


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: frozen(tiny_policy()), "nothing to train: all its weights are frozen; add_lora"),
        (lambda: frozen(lora(tiny_policy())), "nothing to train: its adapter is frozen; load it by load_policy"),
        (lambda: MORE_ADAPTERS["merged"](tiny_policy()), "is merged into the weights"),
        (lambda: inactive(tiny_policy()), "is not active"),
    ],
    ids=["frozen weights", "frozen LoRA", "merged", "inactive"],
)
def test_training_what_takes_no_part_in_the_model_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        check_trainable(make())


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_adapter_that_computes_may_train(name):
    check_trainable(ADAPTERS[name](tiny_policy()))


def test_a_tokenizer_without_a_fast_backend_is_refused_where_the_policy_is_made():
    with pytest.raises(ValueError, match=r"ByT5Tokenizer.*no fast backend.*tokenizer.json"):
        Policy("slow", tiny_policy().model, ByT5Tokenizer())


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        lora_config(alora_invocation_tokens=[4, 5]),
    ],
    ids=["prompt tuning", "prefix tuning", "activated lora"],
)
def test_an_adapter_that_acts_outside_the_layers_is_refused(config):
    with pytest.raises(ValueError, match=r"acts outside the model's layers.*add_lora"):
        with_config(tiny_policy(), config)


def test_a_model_in_a_foreign_wrapper_is_refused():
    base = tiny_policy()
    with pytest.raises(TypeError, match="a Sequential is no model of transformers"):
        Policy("t", torch.nn.Sequential(base.model), base.tokenizer)


def test_the_fixed_teacher_stays_the_initial_policy_and_the_student_comes_back(any_policy):
    initial, teacher = logits(any_policy), fixed_teacher(any_policy)
    disturb(any_policy)
    teacher.update()
    student = logits(any_policy)
    with teacher.beside(any_policy):
        torch.testing.assert_close(logits(any_policy), initial, atol=1e-6, rtol=0)
    torch.testing.assert_close(logits(any_policy), student, atol=0, rtol=0)
    assert not torch.allclose(initial, student, atol=1e-2)


def test_a_fixed_teacher_without_an_adapter_or_with_a_trained_one_keeps_a_copy(policy):
    assert isinstance(fixed_teacher(policy), AdapterOffTeacher)
    assert isinstance(fixed_teacher(tiny_policy()), AveragedTeacher)
    disturb(policy)
    initial, teacher = logits(policy), fixed_teacher(policy)
    assert isinstance(teacher, AveragedTeacher) and not has_fresh_lora(policy)
    disturb(policy)
    with teacher.beside(policy):
        torch.testing.assert_close(logits(policy), initial, atol=0, rtol=0)


def test_switching_off_a_trained_adapter_is_refused(policy):
    disturb(policy)
    with pytest.raises(ValueError, match="no fresh LoRA"):
        AdapterOffTeacher(policy)


@pytest.mark.parametrize("build", [fixed_teacher, ema_teacher, lambda p: live_teacher()])
def test_an_exception_inside_the_teachers_block_gives_the_student_back(any_policy, build):
    teacher = build(any_policy)
    disturb(any_policy)
    student = logits(any_policy)
    with pytest.raises(KeyboardInterrupt), teacher.beside(any_policy):
        raise KeyboardInterrupt
    torch.testing.assert_close(logits(any_policy), student, atol=0, rtol=0)


def test_the_averaged_teacher_starts_at_the_initial_policy_and_follows_by_its_decay(any_policy):
    names = list(any_policy.trainable())
    start = {name: p.detach().clone() for name, p in any_policy.trainable().items()}
    teacher = ema_teacher(any_policy, decay=0.75)
    assert all(torch.equal(teacher.state()[n], start[n].float()) for n in names)
    disturb(any_policy)
    one = {name: p.detach().clone() for name, p in any_policy.trainable().items()}
    teacher.update()
    disturb(any_policy)
    two = {name: p.detach().clone() for name, p in any_policy.trainable().items()}
    teacher.update()
    for name in names:
        expected = 0.75 * (0.75 * start[name] + 0.25 * one[name]) + 0.25 * two[name]
        torch.testing.assert_close(teacher.state()[name], expected.float(), atol=1e-6, rtol=0)


def test_a_slow_average_of_bfloat16_weights_does_not_stand_still():
    policy = tiny_policy()
    policy.model.to(torch.bfloat16)
    teacher = ema_teacher(policy, decay=0.999)
    before = {name: value.clone() for name, value in teacher.state().items()}
    disturb(policy, 0.01)
    teacher.update()
    assert all(not torch.equal(before[name], value) for name, value in teacher.state().items())


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_decay_out_of_range_is_refused(policy, decay):
    with pytest.raises(ValueError, match="decay"):
        ema_teacher(policy, decay)


def test_an_averaged_teachers_state_of_another_model_is_refused(policy):
    with pytest.raises(ValueError, match="other parameters"):
        ema_teacher(policy).load_state({"foreign": torch.zeros(1)})


def test_the_live_teacher_is_the_student(policy):
    disturb(policy)
    student = logits(policy)
    with live_teacher().beside(policy):
        torch.testing.assert_close(logits(policy), student, atol=0, rtol=0)


def test_a_missing_pad_token_is_no_obstacle_and_a_missing_end_token_is_an_error():
    base = tiny_policy()
    policy = Policy("t", base.model, byte_tokenizer(eos_token="<|im_end|>"))
    assert policy.tokenizer.pad_token_id is None and policy.pad_id == policy.eos_ids[0]
    base.model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match=r"no end-of-sequence token.*set tokenizer.eos_token"):
        Policy("t", base.model, byte_tokenizer(unk_token="<|im_start|>"))


def test_every_end_token_of_the_generation_config_ends_a_completion():
    base = tiny_policy()
    base.model.generation_config.eos_token_id = [3, 4]
    assert base.eos_ids == (3, 4, base.tokenizer.eos_token_id)


@pytest.mark.parametrize(
    ("abilities", "expected"),
    [
        ({"architecture": "x86_64", "avx512_bf16": True}, torch.float32),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"architecture": "aarch64"}, torch.bfloat16),
    ],
    ids=str,
)
def test_a_local_folder_loads_in_its_own_dtype_unless_this_processor_is_slow_at_it(tmp_path, monkeypatch, abilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    base = tiny_policy()
    base.model.to(torch.bfloat16).save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    assert load_policy(tmp_path, device="cpu").causal_lm.dtype == expected
    assert load_policy(tmp_path, dtype=torch.float32, device="cpu").causal_lm.dtype == torch.float32
    assert load_policy(tmp_path, dtype=torch.bfloat16, device="cpu").causal_lm.dtype == torch.bfloat16


def test_the_embedded_model_knows_a_fact(smollm2):
    ids = smollm2.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    best = smollm2.model(input_ids=ids).logits[0, -1].argmax()
    assert smollm2.tokenizer.decode(best) == " Paris"
