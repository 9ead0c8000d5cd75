import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
import torch

from opsd_lab.contexts import ContextBuilder
from opsd_lab.divergences import reverse_kl
from opsd_lab.objectives import OPSD, SampledTokenOPSD
from opsd_lab.policies.teachers import fixed_teacher, live_teacher
from opsd_lab.rollouts import HFSampler, Rollout, SamplingParams
from opsd_lab.scoring.batching import Example
from opsd_lab.steps.labels import label_steps
from opsd_lab.supervision.views import score_rollouts
from opsd_lab.tokens.table import COLUMNS, TokenTable
from opsd_lab.tokens.text import token_texts
from opsd_lab.training.drawing import draw
from opsd_lab.training.trainer import Trainer, TrainingParams


@pytest.fixture
def trainer(policy, problems, contexts) -> Trainer:
    params = TrainingParams(batch_size=6, learning_rate=1e-2, token_budget=400)
    return Trainer(policy, problems, contexts, HFSampler(policy, progress=False), SamplingParams(7), params=params)


def examples_of(trainer: Trainer, rollouts: Iterable[Rollout]) -> list[Example]:
    pairs = {p.id: shown for p, shown in zip(trainer.problems, trainer.prompts, strict=True)}
    return [Example(pairs[r.problem_id], r, len(r.completion_ids)) for r in rollouts]


@pytest.mark.parametrize(
    "objective", [OPSD(), OPSD(reverse_kl, pointwise_clip=0.05), SampledTokenOPSD()], ids=["forward", "clip", "sampled"]
)
def test_scoring_rollouts_gives_the_table_that_the_training_step_then_records(trainer, objective):
    trainer.objective = objective
    examples = examples_of(trainer, draw(trainer, trainer.at(1)).rollouts)
    scored = score_rollouts(trainer.policy, trainer.teacher, objective, examples, token_budget=10_000)
    trained = next(trainer.train(1, progress=False)).table
    pd.testing.assert_frame_equal(scored.frame, trained.frame, atol=1e-5, rtol=0)


def test_after_a_step_the_fixed_teachers_numbers_stand_still_and_the_students_have_moved(trainer):
    record = next(itertools.islice(trainer.train(2, progress=False), 1, None))
    weights = [p.detach().clone() for p in trainer.trainable]
    scored = score_rollouts(trainer.policy, trainer.teacher, trainer.objective, examples_of(trainer, record.rollouts)).frame
    np.testing.assert_allclose(scored["teacher_logprob"], record.table.frame["teacher_logprob"], atol=1e-5)
    assert np.abs(scored["student_logprob"] - record.table.frame["student_logprob"]).max() > 1e-4
    assert all(torch.equal(a, b) for a, b in zip(weights, trainer.trainable, strict=True)), "scoring trains nothing"


def test_ranks_and_entropies_are_those_of_the_full_distributions(policy, problems, contexts):
    pair = contexts.build(problems[0])
    rollout = HFSampler(policy, progress=False).sample([list(pair.student_ids)], SamplingParams(5))[0]
    table = score_rollouts(policy, fixed_teacher(policy), OPSD(), [Example(pair, rollout, 5)]).frame
    for side, prompt in (("student", pair.student_ids), ("teacher", pair.teacher_ids)):
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([prompt + rollout.completion_ids])).logits[0, len(prompt) - 1 : -1].double()
        probabilities = logits.softmax(-1)
        for position, token in enumerate(rollout.completion_ids):
            p = probabilities[position]
            assert table[f"{side}_logprob"][position] == pytest.approx(p[token].log().item(), abs=1e-5)
            assert table[f"{side}_entropy"][position] == pytest.approx(-(p * p.log()).sum().item(), abs=1e-5)
            assert table[f"{side}_rank"][position] == int((p > p[token]).sum())


def test_steps_are_labelled_on_the_tokens_that_hold_them(smollm2, problems):
    contexts = ContextBuilder(smollm2.tokenizer)
    pair = contexts.build(problems[0])
    ids = smollm2.tokenizer(" 7 + 5 = 12. 3 * 4 = 11. Done")["input_ids"]
    rollout = Rollout("p", pair.student_ids, tuple(ids), (-1.0,) * len(ids), "length", "", token_texts(smollm2.tokenizer, ids))
    table = label_steps(score_rollouts(smollm2, live_teacher(), OPSD(), [Example(pair, rollout, len(ids))]))
    by_label = table.frame.groupby("label", sort=False)["token"].agg("".join).to_dict()
    assert by_label["correct"].strip() == "7 + 5 = 12" and by_label["incorrect"].strip() == "3 * 4 = 11"
    assert table.frame["step"].max() == 1


def test_no_examples_are_refused(policy):
    with pytest.raises(ValueError, match="no examples"):
        score_rollouts(policy, fixed_teacher(policy), OPSD(), [])


def row(**changes) -> pd.DataFrame:
    good = dict.fromkeys(COLUMNS, 0) | {
        "problem_id": "p",
        "token": "a",
        "label": "",
        "label_source": "",
        "error_phase": "",
        "outcome": "",
        "student_logprob": -2.0,
        "teacher_logprob": -1.0,
        "gap": 1.0,
    }
    return pd.DataFrame([good | changes])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gap": 0.5}, "gap is not teacher_logprob - student_logprob"),
        ({"label": "right"}, "unknown values"),
        ({"loss": float("nan")}, "column 'loss' has no value in row 0"),
        ({"extra": [(1,)]}, "column 'extra' holds neither numbers nor texts"),
    ],
)
def test_an_inconsistent_table_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TokenTable(row(**changes))


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match=r"missing columns \['weight'\]"):
        TokenTable(row().drop(columns="weight"))


def test_joined_tables_keep_their_rollouts_apart_and_each_can_be_taken_out_again():
    two = TokenTable(pd.concat([row(rollout=0), row(rollout=1)]))
    joined = TokenTable.concatenate([two, two])
    assert joined.frame["rollout"].tolist() == [0, 1, 2, 3]
    assert len(joined.rollout(3)) == 1
    with pytest.raises(KeyError, match="no rollout 4"):
        joined.rollout(4)
