"""Six methods, weights and views as somebody would add them: short, in a file of their own, and what their formulas say."""

import ast
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from opsd_lab import (
    GRPO,
    OPSD,
    ContextBuilder,
    HFSampler,
    SamplingParams,
    Trainer,
    TrainingParams,
    forward_kl,
    no_privilege,
    render,
)
from opsd_lab.basics.schedules import at_step
from opsd_lab.objectives import Tokens
from opsd_lab.policies.head import LogitHead
from opsd_lab.scoring.forward import CompletionStates
from opsd_lab.scoring.pipeline import token_losses
from opsd_lab.tokens.files import load_table, save_table
from opsd_lab.tokens.table import COLUMNS
from tests.conftest import tiny_policy
from tests.newcomer.pmi_residual import PMIResidual
from tests.newcomer.reward_or_distil import reward_or_distil
from tests.newcomer.rlsd import RLSD
from tests.newcomer.skewed_kl import SkewedKL
from tests.newcomer.successful_peer import successful_peer
from tests.newcomer.uncertain_tokens import uncertain_tokens

FILES = sorted(path for path in (Path(__file__).parent / "newcomer").glob("*.py") if path.name != "__init__.py")
N, H, V = 14, 6, 31


def lines_of_code(path: Path) -> int:
    """Lines that are neither blank nor an import."""
    source = path.read_text()
    imports = {
        line
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    return sum(bool(line.strip()) for i, line in enumerate(source.splitlines(), 1) if i not in imports)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_takes_15_lines_or_fewer(path):
    assert len(FILES) == 6 and lines_of_code(path) <= 15


def case(views=("teacher",)):
    """States of all sides in float32 with one head, and tokens of three rollouts, of which the second was rewarded."""
    generator = torch.Generator().manual_seed(1)
    head = torch.nn.Linear(H, V, bias=False).requires_grad_(False)
    head.weight.copy_(torch.randn(V, H, generator=generator))
    student = torch.randn(N, H, generator=generator, requires_grad=True)
    teachers = {name: student.detach() + 0.5 * torch.randn(N, H, generator=generator) for name in views}
    ids, rollout = torch.randint(V, (N,), generator=generator), torch.tensor([0] * 5 + [1] * 6 + [2] * 3)
    sampled = (student.detach() @ head.weight.T).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    tokens = Tokens(
        ids,
        rollout=rollout,
        advantage=torch.tensor([-0.7, 1.4, -0.7])[rollout],
        outcome=torch.tensor([0.0, 1.0, 0.0])[rollout],
        sampled_logprob=sampled + 0.3 * torch.randn(N, generator=generator),
    )
    states = {name: CompletionStates(hidden, LogitHead(head)) for name, hidden in teachers.items()}
    return CompletionStates(student, LogitHead(head)), states, tokens


def assert_is(objective, formula, views=("teacher",)):
    """Hold losses against a formula in float64 on whole logits, and gradients against autograd through it."""
    student, teachers, tokens = case(views)
    scored = token_losses(objective, student, teachers, tokens)
    (found,) = torch.autograd.grad(scored.loss.sum(), student.hidden)
    weight = student.head.module.weight.double().T
    logps = (student.hidden.double() @ weight).log_softmax(-1)
    theirs = {name: (states.hidden.double() @ weight).log_softmax(-1) for name, states in teachers.items()}
    expected = formula(logps, theirs, tokens)
    (gradient,) = torch.autograd.grad(expected.sum(), student.hidden)
    torch.testing.assert_close(scored.loss.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.double(), gradient.double(), atol=1e-5, rtol=1e-5)
    return scored.readings[""]


def of(logps, ids):
    return logps.gather(-1, ids[:, None])[:, 0]


def grpo(logps, tokens, advantage):
    ratio = (of(logps, tokens.ids) - tokens.sampled_logprob.double()).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)


@pytest.mark.parametrize("step", [1, 20, 50, 51])
def test_rlsd_is_its_formula_under_its_schedule_and_its_advantage_is_a_column(step):
    share = max(0.0, 0.5 * (1 - step / 50))

    def formula(logps, theirs, tokens):
        gap = (of(theirs["teacher"], tokens.ids) - of(logps, tokens.ids)).detach()
        a = tokens.advantage.double()
        return grpo(logps, tokens, a * (1 - share + share * (a.sign() * gap).exp().clamp(0.8, 1.2)))

    columns = assert_is(at_step(RLSD(), step), formula)
    _, _, tokens = case()
    assert bool((columns["advantage"].sign() == tokens.advantage.sign()).all())
    if step >= 50:
        torch.testing.assert_close(columns["advantage"], tokens.advantage)


def test_skewed_kl_is_its_formula_with_every_option_around_it():
    def formula(logps, theirs, tokens):
        s, t = (logps / 1.3).softmax(-1), (theirs["teacher"] / 1.3).softmax(-1)
        return (t * (t / (0.1 * t + 0.9 * s)).log()).clamp(max=0.2).sum(-1)

    assert_is(OPSD(SkewedKL(), temperature=1.3, pointwise_clip=0.2), formula)


def test_a_pmi_residual_is_made_of_three_sides():
    views = ("both", "solution", "question")

    def formula(logps, theirs, tokens):
        d = theirs["both"] - theirs["solution"]
        target = (theirs["question"] + 10 * torch.tanh((d - d.mean(-1, keepdim=True)) / 10)).log_softmax(-1)
        return (target.exp() * (target - logps)).sum(-1)

    columns = assert_is(OPSD(forward_kl, target=PMIResidual()), formula, views)
    assert {"gap", "gap solution", "gap question"} <= columns.keys()


def test_a_route_goes_by_the_outcome():
    def formula(logps, theirs, tokens):
        distilled = (logps.exp() * (logps - theirs["teacher"])).sum(-1)
        return torch.where(tokens.outcome > 0, grpo(logps, tokens, tokens.advantage.double()), distilled)

    assert_is(reward_or_distil, formula)


def rewards(rollouts, problems):
    """Every second rollout of a problem is right."""
    seen: dict[str, int] = {}
    found = []
    for problem in problems:
        seen[problem.id] = seen.get(problem.id, 0) + 1
        found.append(float(seen[problem.id] % 2))
    return found


def trained(problems, view, **options):
    policy = tiny_policy()
    contexts = ContextBuilder(policy.tokenizer, view)
    params = TrainingParams(batch_size=3, learning_rate=1e-2, token_budget=300)
    sampler, sampling = HFSampler(policy, progress=False), SamplingParams(6, n=2)
    trainer = Trainer(policy, problems, contexts, sampler, sampling, params=params, rewards=rewards, **options)
    return trainer, next(trainer.train(1, progress=False))


def test_a_weight_sees_the_whole_step_and_the_loss_is_divided_by_the_steps_total(problems):
    trainer, record = trained(problems, no_privilege, objective=GRPO(), weights=uncertain_tokens)
    frame = record.table.frame
    expected = (
        frame["student_entropy"] >= torch.tensor(frame["student_entropy"].to_numpy()).float().quantile(0.8).item() - 1e-6
    ).astype(float)
    assert frame["weight"].tolist() == expected.tolist() and 0 < frame["weight"].sum() < len(frame) / 2
    assert record.loss == pytest.approx(float((frame["loss"] * frame["weight"]).sum() / frame["weight"].sum()), abs=1e-6)
    plain, unweighed = trained(problems, no_privilege, objective=GRPO())
    assert trainer.ledger.flops_score > plain.ledger.flops_score == 0, "the pass without gradient is billed"
    assert unweighed.table.frame["weight"].eq(1).all()


def test_a_view_sees_the_rollouts_peers_and_a_rollout_without_one_does_not_count(problems):
    trainer, record = trained(problems, successful_peer, objective=OPSD())
    frame = record.table.frame
    groups = {}
    for i, rollout in enumerate(record.rollouts):
        groups.setdefault(rollout.problem_id, []).append(i)
    for first, second in groups.values():  # the first of each pair is the one that is right: its peer is not
        assert frame.loc[frame["rollout"] == first, "weight"].eq(0).all() and frame.loc[frame["rollout"] == first, "loss"].eq(0).all()
        assert frame.loc[frame["rollout"] == second, "weight"].eq(1).all()
    used = frame[frame["weight"] > 0]
    assert record.loss == pytest.approx(used["loss"].mean(), abs=1e-6) and used["divergence"].gt(0).all()
    shown = trainer.contexts.with_rollout(trainer.prompts[0], trainer.problems[0], *_pair(record, trainer))
    assert record.rollouts[0].text in trainer.policy.tokenizer.decode(shown.teacher_ids) or not record.rollouts[0].text


def _pair(record, trainer):
    from opsd_lab.rollouts.group import groups_of

    problem = next(p for p in trainer.problems if p.id == record.rollouts[0].problem_id)
    mine = [replace(r) for r in record.rollouts if r.problem_id == problem.id]
    return mine[1], groups_of([problem], mine, [1.0, 0.0])[0]


def test_extra_columns_go_into_files_and_views(problems, tmp_path):
    _, record = trained(problems, no_privilege, objective=RLSD())
    assert record.table.extra == ["advantage"] and set(COLUMNS) < set(record.table.frame)
    assert load_table(save_table(record.table, tmp_path / "table.parquet")).frame.equals(record.table.frame)
    assert "advantage" in render(record.table.rollout(0))._repr_html_()
    assert math.isfinite(record.loss)
