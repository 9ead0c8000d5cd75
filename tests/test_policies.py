import pytest
import torch

from opsd_lab.policies import Policy, add_lora, has_fresh_lora, load_policy
from opsd_lab.teachers import AdapterOffTeacher, AveragedTeacher, ema_teacher, fixed_teacher, live_teacher
from tests.conftest import byte_tokenizer, tiny_policy

IDS = torch.arange(10)[None]


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy.model(input_ids=IDS).logits


def disturb(policy: Policy, amount: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in policy.trainable().values():
            p += amount * torch.randn(p.shape, generator=generator)


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


def test_a_second_lora_is_refused(policy):
    with pytest.raises(ValueError, match="has a LoRA already"):
        add_lora(policy)


def test_the_fixed_teacher_stays_the_initial_policy_and_the_student_comes_back(any_policy):
    initial, teacher = logits(any_policy), fixed_teacher(any_policy)
    disturb(any_policy)
    teacher.update()
    student = logits(any_policy)
    with teacher.weights():
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
    with teacher.weights():
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
    with pytest.raises(KeyboardInterrupt), teacher.weights():
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
    with live_teacher().weights():
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
