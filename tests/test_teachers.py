"""One way to ask a teacher: trained with, scored with and written with, it computes with its own weights and head."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from opsd_lab.contexts import ContextBuilder, no_privilege, reference_solution
from opsd_lab.divergences import reverse_kl
from opsd_lab.objectives import OPSD
from opsd_lab.policies.policy import Policy, add_lora
from opsd_lab.policies.teacher_checks import check_teacher
from opsd_lab.policies.teachers import OtherTeacher, ema_teacher, fixed_teacher, live_teacher
from opsd_lab.rollouts import HFSampler, SamplingParams, sample_rollouts
from opsd_lab.rollouts.agreement import own_logprobs
from opsd_lab.rollouts.sources import Order, StudentWrites
from opsd_lab.rollouts.teacher_writes import TeacherWrites
from opsd_lab.supervision.views import build_examples, score_rollouts, score_views
from opsd_lab.training.costs import CostModel
from opsd_lab.training.trainer import Trainer, TrainingParams
from tests.conftest import PROBLEMS, byte_tokenizer, tiny_policy

PARAMS = SamplingParams(6, seed=2)


def build(policy: Policy, view=no_privilege, **options) -> Trainer:
    contexts = ContextBuilder(policy.tokenizer, view)
    params = TrainingParams(batch_size=4, learning_rate=1e-2)
    problems = options.pop("problems", PROBLEMS)
    return Trainer(
        policy, problems, contexts, HFSampler(policy, progress=False), options.pop("sampling", PARAMS), params=params, **options
    )


def pairs_of(policy: Policy, view=reference_solution):
    contexts = ContextBuilder(policy.tokenizer, view)
    return [contexts.build(problem) for problem in PROBLEMS]


def examples_of(policy: Policy, view=no_privilege):
    rollouts = sample_rollouts(HFSampler(policy, progress=False), ContextBuilder(policy.tokenizer), PROBLEMS, PARAMS)
    return build_examples(ContextBuilder(policy.tokenizer, view), PROBLEMS, rollouts)


def shaken(policy: Policy, amount: float = 0.3) -> Policy:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in policy.trainable().values():
            p += amount * torch.randn(p.shape, generator=generator).to(p)
    return policy


def lora() -> Policy:
    return add_lora(tiny_policy(), rank=4, alpha=8)


def texts(rollouts) -> list[tuple[int, ...]]:
    return [rollout.completion_ids for rollout in rollouts]


class Engine:
    """A sampler with weights of its own, as an engine in another process has them."""

    def __init__(self, policy: Policy) -> None:
        self.updates = 0
        self.update(policy)

    def update(self, policy: Policy) -> None:
        self.policy, self.updates = policy, self.updates + 1
        self._inner = HFSampler(Policy("a copy", copy.deepcopy(policy.model), policy.tokenizer), progress=False)

    def sample(self, prompts, params):
        return self._inner.sample(prompts, params)


@pytest.mark.parametrize("side", ["teacher", "student"])
def test_another_policy_is_scored_with_its_own_weights_and_head(side):
    student, other = tiny_policy(), tiny_policy(seed=5)
    examples = examples_of(student)
    sides = {"teacher": live_teacher(), "student": live_teacher()} | {side: OtherTeacher(other, student)}
    frame = score_views(student, sides["teacher"], OPSD(reverse_kl), {"none": examples}, student=sides["student"])["none"].frame
    for i, example in enumerate(examples):
        expected = own_logprobs(other, example.rollout).numpy()
        np.testing.assert_allclose(frame.loc[frame["rollout"] == i, f"{side}_logprob"], expected, atol=1e-4)
    assert frame["gap"].abs().max() > 0.5


@pytest.mark.parametrize("kind", ["fixed", "average", "other"])
def test_the_teachers_samples_are_its_own_whoever_samples_and_the_sampler_is_the_students_afterwards(kind):
    student = tiny_policy() if kind == "average" else lora()
    teacher = {
        "fixed": fixed_teacher,
        "average": lambda s: ema_teacher(s, 1.0),
        "other": lambda s: OtherTeacher(tiny_policy(seed=5), s),
    }
    teacher = teacher[kind](student)
    shaken(student)
    pairs = pairs_of(student)
    with teacher.beside(student) as policy:
        expected = HFSampler(policy, progress=False).sample([list(pair.teacher_ids) for pair in pairs], PARAMS)
    sampler = HFSampler(student, progress=False)
    prompts = [list(pair.student_ids) for pair in pairs]
    ours = sampler.sample(prompts, PARAMS)
    written = TeacherWrites().write(Order(sampler, teacher, PROBLEMS, pairs, PARAMS)).rollouts
    assert texts(written) == texts(expected) != texts(ours)
    assert [rollout.prompt_ids for rollout in written] == [pair.student_ids for pair in pairs]
    assert sampler.policy is student and texts(sampler.sample(prompts, PARAMS)) == texts(ours)


def test_a_sampler_with_weights_of_its_own_is_handed_the_teachers_and_then_the_students():
    student = tiny_policy()
    teacher = ema_teacher(student, 1.0)
    pairs = pairs_of(student)
    initial = HFSampler(student, progress=False).sample([list(pair.teacher_ids) for pair in pairs], PARAMS)
    engine = Engine(shaken(student))
    prompts = [list(pair.student_ids) for pair in pairs]
    before = engine.sample(prompts, PARAMS)
    assert texts(TeacherWrites().write(Order(engine, teacher, PROBLEMS, pairs, PARAMS)).rollouts) == texts(initial)
    assert engine.updates == 3 and texts(engine.sample(prompts, PARAMS)) == texts(before)
    with pytest.raises(ValueError, match="exceeds the context"):
        TeacherWrites().write(Order(engine, teacher, PROBLEMS, pairs, SamplingParams(500)))
    engine.sample = lambda *_: (_ for _ in ()).throw(RuntimeError("broke off"))
    with pytest.raises(RuntimeError, match="broke off"):
        TeacherWrites().write(Order(engine, teacher, PROBLEMS, pairs, PARAMS))
    del engine.sample
    assert texts(engine.sample(prompts, PARAMS)) == texts(before), "the student's weights are back whatever happened"


def test_a_sampler_that_cannot_have_the_teachers_weights_is_refused_by_name():
    student, other = lora(), tiny_policy(seed=5)
    pairs, engine = pairs_of(student), Engine(student)
    with pytest.raises(ValueError, match=r"Engine has weights of its own, those of tiny.*TeacherWrites\(Engine"):
        TeacherWrites().write(Order(engine, OtherTeacher(other, student), PROBLEMS, pairs, PARAMS))
    with pytest.raises(ValueError, match=r"Engine .* cannot be handed a LoRA that is switched off; let ema_teacher"):
        TeacherWrites().write(Order(engine, fixed_teacher(student), PROBLEMS, pairs, PARAMS))
    with pytest.raises(TypeError, match="object does not say whose weights it has"):
        TeacherWrites().write(Order(object(), live_teacher(), PROBLEMS, pairs, PARAMS))
    own = Engine(other)
    written = TeacherWrites(own).write(Order(engine, OtherTeacher(other, student), PROBLEMS, pairs, PARAMS)).rollouts
    assert own.updates == engine.updates == 1
    assert texts(written) == texts(own.sample([list(pair.teacher_ids) for pair in pairs], PARAMS))


def test_what_another_teacher_costs_is_counted_by_its_own_shapes():
    student, other = lora(), tiny_policy(seed=5)
    assert build(student, teacher=OtherTeacher(other, student)).costs.teacher == CostModel.of(other) != CostModel.of(student)


def padded(policy: Policy, extra: int) -> Policy:
    policy.model.resize_token_embeddings(len(policy.tokenizer) + extra, mean_resizing=False)
    return policy


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_heads_that_are_padded_otherwise_are_refused_with_both_sizes_and_the_remedy_works(side):
    student, teacher = tiny_policy(), replace(tiny_policy(seed=5), name="expert")
    size = len(student.tokenizer)
    larger = padded({"student": student, "teacher": teacher}[side], 64)
    with pytest.raises(
        ValueError, match=rf"expert gives \d+ logits, the student tiny \d+,.*resize_token_embeddings\({size}\)"
    ) as error:
        OtherTeacher(teacher, student)
    assert {f"{size}", f"{size + 64}"} <= {word.strip(",") for word in str(error.value).split()}
    larger.model.resize_token_embeddings(size)
    assert np.isfinite(next(build(student, teacher=OtherTeacher(teacher, student)).train(1, progress=False)).loss)


def test_a_teacher_that_shares_weights_with_its_student_is_refused_with_the_remedy():
    base = tiny_policy()
    student = add_lora(base, rank=4)
    for teacher, learner in ((base, student), (student, student), (student, base)):
        with pytest.raises(
            ValueError, match=r"shares weights with the student.*fixed_teacher\(student\)|was given to add_lora.*load it"
        ):
            OtherTeacher(teacher, learner)


class Sly:
    """A teacher that somebody wrote without the checks."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def beside(self, student):
        from contextlib import nullcontext

        return nullcontext(self._policy)

    def update(self):
        pass

    def state(self):
        return {}

    def load_state(self, state):
        pass


@pytest.mark.parametrize("path", ["train", "score", "score as the student", "write"])
def test_every_path_checks_whoever_teaches(path):
    student = lora()
    other = Policy("other", padded(tiny_policy(seed=5), 8).model, student.tokenizer)
    with pytest.raises(ValueError, match="the teacher other gives"):
        match path:
            case "train":
                build(student, teacher=Sly(other))
            case "score":
                score_rollouts(student, Sly(other), OPSD(), examples_of(student))
            case "score as the student":
                score_rollouts(student, live_teacher(), OPSD(), examples_of(student), student=Sly(other))
            case "write":
                TeacherWrites().write(Order(HFSampler(student, progress=False), Sly(other), PROBLEMS, pairs_of(student), PARAMS))


def test_a_teacher_on_another_device_or_with_another_vocabulary_is_refused():
    student = tiny_policy()
    foreign = Policy("foreign", tiny_policy(seed=5).model, byte_tokenizer())
    foreign.tokenizer.add_tokens(["new"])
    with pytest.raises(ValueError, match="foreign has another vocabulary than tiny"):
        check_teacher(student, foreign)
    with pytest.raises(ValueError, match="is on meta, the student tiny on c"):
        check_teacher(student, Policy("far", tiny_policy(seed=5).model.to("meta"), student.tokenizer))


@pytest.mark.parametrize("path", ["train", "score", "write"])
def test_a_teacher_with_a_shorter_context_is_refused_with_the_example(path):
    student, short = tiny_policy(), replace(tiny_policy(seed=5, context=64), name="short")
    teacher = OtherTeacher(short, student)
    name = r"view 'teacher', example 0 \(problem 'p3'\)" if path == "score" else "problem 'p3'"
    with pytest.raises(
        ValueError, match=rf"{name}: the teacher's prompt has \d+ tokens and its completion up to 6, .* of short, 64 tokens"
    ):
        match path:
            case "train":
                build(student, teacher=teacher)
            case "score":
                score_rollouts(student, teacher, OPSD(), examples_of(student))
            case "write":
                TeacherWrites().write(Order(HFSampler(student, progress=False), teacher, PROBLEMS, pairs_of(student), PARAMS))


def test_a_teacher_with_a_longer_context_may_read_more_than_its_student():
    student, teacher = tiny_policy(context=192), replace(tiny_policy(seed=5, context=512), name="long")
    trainer = build(student, lambda problem: "x" * 150, teacher=OtherTeacher(teacher, student))
    assert max(len(pair.teacher_ids) for pair in trainer.prompts) > 192
    assert np.isfinite(next(trainer.train(1, progress=False)).loss)


def test_a_prompt_beyond_the_context_names_its_problem_on_every_path():
    student = tiny_policy(context=192)
    examples = examples_of(student, lambda problem: "x" * 150)
    with pytest.raises(ValueError, match=r"view 'teacher', example 0 \(problem 'p3'\): the teacher's prompt has \d+ tokens"):
        score_rollouts(student, live_teacher(), OPSD(), examples)
    sampler, pairs = HFSampler(student, progress=False), pairs_of(student, lambda problem: "x" * 150)
    with pytest.raises(ValueError, match="problem 'p3': the teacher's prompt"):
        TeacherWrites().write(Order(sampler, live_teacher(), PROBLEMS, pairs, PARAMS))
    with pytest.raises(ValueError, match="problem 'p3': the student's prompt"):
        StudentWrites().write(Order(sampler, live_teacher(), PROBLEMS, pairs, SamplingParams(150)))


@pytest.mark.parametrize("make", [fixed_teacher, ema_teacher])
def test_a_teacher_made_of_another_policy_is_refused(make):
    teacher = make(lora())
    with pytest.raises(ValueError, match="was made of another policy"):
        build(lora(), teacher=teacher)


def test_problems_with_the_same_id_are_refused_before_any_work():
    with pytest.raises(ValueError, match=r"several problems have the same id: 'p3'"):
        build(lora(), problems=[*PROBLEMS, PROBLEMS[0]])
    student = lora()
    rollouts = [example.rollout for example in examples_of(student)]
    with pytest.raises(ValueError, match="several problems have the same id"):
        build_examples(ContextBuilder(student.tokenizer), [*PROBLEMS, replace(PROBLEMS[0], answer="0")], rollouts)


def test_rollouts_that_were_all_cut_and_dropped_are_an_error_with_a_gate_as_without():
    student = lora()
    trainer = build(
        student, sampling=SamplingParams(2), rewards=lambda r, p: [1.0] * len(r), gate=lambda rewards, groups: rewards > -1
    )
    trainer.params = replace(trainer.params, truncated="drop")
    with pytest.raises(RuntimeError, match="step 1: every rollout that the gate let through was cut at 2 tokens and dropped"):
        next(trainer.train(1, progress=False))
