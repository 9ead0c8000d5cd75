"""What methods come to at the ends of their numbers: one method is another there."""

from dataclasses import replace

import pytest
import torch

from opsd_lab.contexts import no_privilege, reference_solution
from opsd_lab.contexts.views import PartialSolution
from opsd_lab.divergences import Side, forward_kl, jsd, reverse_kl
from opsd_lab.methods import METHODS
from opsd_lab.methods.contexts import FirstTokens, FlooredRatio
from opsd_lab.methods.targets import Agreement, ControlVariate, Steering, ViewConsensus
from opsd_lab.methods.token_weights import DriftCount, EntropyGate, PositionSigmoid, WhitenedRatio
from opsd_lab.objectives import GRPO, OPSD, PolicyGradient, Scaled, Teachers
from opsd_lab.objectives.targets import GeometricMixture, PMIResidual, TheView
from opsd_lab.training import Recipe
from tests.conftest import PROBLEMS
from tests.methods.constructed import OUTCOME, evaluated

GRPO_ALONE = Recipe(GRPO(), n=8)


def same(one, other, step=1, **kept):
    """Two recipes have the same loss and gradient on constructed tokens."""
    a, b = (evaluated(recipe, step, **kept) for recipe in (one, other))
    torch.testing.assert_close(a[0], b[0])
    torch.testing.assert_close(a[1], b[1])


def recipe(key, **objective):
    made = METHODS[key].make()
    return replace(made, objective=replace(made.objective, **objective))


@pytest.mark.parametrize("key", ["rlsd", "cepo"])
def test_rlsd_and_cepo_without_share_are_grpo(key):
    same(recipe(key, share=0.0), replace(GRPO_ALONE, view=METHODS[key].make().view))


def test_antisd_rlcsd_and_gear_without_share_are_grpo():
    same(recipe("antisd", share=0.0), GRPO_ALONE)
    same(recipe("rlcsd", share=0.0), replace(GRPO_ALONE, view=METHODS["rlcsd"].make().view))
    same(recipe("gear", spread=0.0), GRPO_ALONE)


def test_rlrt_on_wrong_rollouts_is_grpo():
    _, _, columns, case = evaluated(recipe("rlrt"))
    wrong = OUTCOME <= 0
    torch.testing.assert_close(columns["advantage"][wrong], case.tokens.advantage[wrong])
    assert not torch.allclose(columns["advantage"][~wrong], case.tokens.advantage[~wrong])


def test_egrsd_without_gamma_is_the_weighted_advantage_and_cl_without_a_window_is_egrsd():
    made = METHODS["egrsd"].make()
    same(replace(made, weights=EntropyGate(0.0)), replace(made, weights=None))
    same(METHODS["cl_egrsd"].make(window=0), made)
    assert isinstance(made.objective, WhitenedRatio)


def test_credit_without_baseline_is_the_sampled_token_with_its_ratio_clipped():
    class Gap(PolicyGradient):
        def token_advantages(self, student, teachers, tokens):
            return teachers["own"].of(tokens.ids) - student.of(tokens.ids)

    made = recipe("credit", weight=0.0)
    same(made, replace(made, objective=Gap()))


def test_purified_without_residual_is_the_base_and_the_same_views_leave_none():
    base = {"question": no_privilege, "both": reference_solution, "solution": reference_solution}
    _, _, _, case = evaluated(Recipe(OPSD(jsd(0.5), target=PMIResidual("question", "both", "solution")), base))
    student = Side(case.s.detach().float())
    sides = Teachers({"q": Side(case.t["question"].float()), "b": student, "s": student})
    torch.testing.assert_close(PMIResidual("q", "b", "s")(student, sides).logprobs, sides["q"].logprobs)


def sides():
    generator = torch.Generator().manual_seed(3)
    return [Side(torch.randn(5, 11, generator=generator)) for _ in range(4)]


def test_avsd_of_one_view_is_that_view():
    student, teacher, *_ = sides()
    torch.testing.assert_close(ViewConsensus()(student, Teachers({"a": teacher})).logprobs, teacher.logprobs)


def test_ogls_without_strength_is_the_teacher_on_wrong_rollouts():
    student, teacher, right, wrong = sides()
    peers = {"right 0": right, "right 1": right, "wrong 0": wrong, "wrong 1": wrong}
    torch.testing.assert_close(Steering(0.0)(student, Teachers({"teacher": teacher, **peers})).logprobs, teacher.logprobs)
    alike = dict.fromkeys(peers, right)
    torch.testing.assert_close(Steering(3.0)(student, Teachers({"teacher": teacher, **alike})).logprobs, teacher.logprobs)


def test_guidance_without_a_contrast_is_the_view_and_cv_with_the_base_as_answer_is_the_full_view():
    student, teacher, wrong, base = sides()
    views = Teachers({"right": teacher, "wrong": wrong})
    torch.testing.assert_close(GeometricMixture({"right": 1.0, "wrong": 0.0})(student, views).logprobs, teacher.logprobs)
    found = ControlVariate()(student, Teachers({"base": base, "full": teacher, "answer": base}))
    torch.testing.assert_close(found.logprobs, teacher.logprobs)


def test_pw_with_the_least_weight_1_is_opsd_and_prune_without_rate_is_opd():
    made = METHODS["pw_opsd"].make(least=1.0)
    same(made, replace(made, weights=None))
    assert bool((PositionSigmoid(1.0)({"position": torch.arange(9), "length": torch.full((9,), 9)}) == 1).all())
    prune = METHODS["prune_opd"].make()
    same(replace(prune, weights=DriftCount(rate=0.0)), replace(prune, weights=None))


def test_unisd_with_its_weights_off_is_self_distillation():
    made = METHODS["unisd"].make()
    plain = replace(made, objective=replace(made.objective, hinge=0.0, token_clip=None), weights=Agreement(strength=0.0))
    same(plain, replace(plain, objective=OPSD(forward_kl, target=TheView("reference")), weights=None))
    assert Agreement()({"disagreement": torch.zeros(5)}).tolist() == [1.0] * 5


def test_srpo_weights_have_the_mean_1_and_with_all_right_it_is_grpo():
    made = METHODS["srpo"].make()
    _, _, columns, case = evaluated(made)
    certainty = made.signals["certainty"](columns)
    assert float(certainty[OUTCOME <= 0].mean()) == pytest.approx(1.0)
    right = case.tokens.outcome.clone().fill_(1.0)
    assert bool((made.signals["certainty"]({**columns, "outcome": right}) == 1).all())
    assert bool(made.objective.choose(replace(case.tokens, outcome=right)).all()) and made.objective.chosen == GRPO()
    alone = replace(case.tokens, seen={"teacher": torch.zeros_like(OUTCOME, dtype=torch.bool)})
    assert bool(made.objective.choose(alone).all()), "a wrong rollout without a right attempt beside it goes to GRPO"
    assert bool(made.objective.counts(alone).all())


def test_sod_with_equal_steps_is_grpo_and_uniform_reverse_kl():
    made = METHODS["sod"].make()
    _, _, columns, _ = evaluated(made)
    flat = made.signals["step decay"]({**columns, "gap": torch.full_like(columns["gap"], 0.3)})
    assert bool((flat == 1).all())
    assert made.objective.objectives == (GRPO(), Scaled(OPSD(reverse_kl), "step decay"))


def test_brts_without_the_teachers_rollouts_is_opd_up_to_the_number_of_rollouts():
    made = METHODS["brts"].make(weight=0.0)
    _, _, columns, case = evaluated(made)
    assert bool((columns["loss"][case.tokens.source == 1] == 0).all())
    assert made.training == {"normalisation": "sequence"}  # each rollout counts by its own tokens, so the others only scale it


def test_ttpo_punishes_nobody_where_nobody_is_the_majority():
    made = METHODS["ttpo"].make()
    _, _, _, case = evaluated(made)
    assert bool(made.objective.counts(case.tokens).all())
    none = replace(case.tokens, outcome=torch.zeros_like(OUTCOME), pass_rate=torch.zeros_like(OUTCOME))
    assert not bool(made.objective.counts(none).any())


def test_antisd_is_grpo_where_the_teacher_says_what_the_student_says():
    made = METHODS["antisd"].make()
    _, _, _, case = evaluated(made)
    student = Side(case.s.detach().float())
    agreed = replace(made.objective, share=0.5).token_advantages(student, Teachers({"teacher": student}), case.tokens)
    torch.testing.assert_close(agreed, case.tokens.advantage)


def test_gear_opens_no_segment_where_the_teacher_agrees_and_one_at_the_one_token_where_it_does_not():
    signal = METHODS["gear"].make().signals["segment"]
    gap, flat = torch.zeros(9), {"student_entropy": torch.ones(9), "rollout": torch.zeros(9)}
    assert signal({"gap": gap, **flat}).tolist() == [0.0] * 9
    assert signal({"gap": gap.index_fill(0, torch.tensor([4]), -2.0), **flat}).tolist() == [0.0] * 4 + [1.0] * 5
    assert signal({"gap": gap.index_fill(0, torch.tensor([4]), 5.0), **flat}).tolist() == [0.0] * 9


def test_resd_is_reverse_kl_where_the_ratio_stays_above_its_floor():
    made = METHODS["resd"].make()
    same(replace(made, objective=OPSD(reverse_kl, target=FlooredRatio(1e-30))), replace(made, objective=OPSD(reverse_kl)))


def test_whitened_rewards_are_those_less_the_running_mean_over_the_running_deviation():
    whitened = WhitenedRatio(mean=0.25, square=0.3125)  # deviation .5
    assert whitened.advantages([1.0, 0.0], ["a", "b"]) == pytest.approx([0.75 / 0.5001, -0.25 / 0.5001])
    assert WhitenedRatio(mean=0.0, square=0.0).advantages([1.0, 0.0], ["a", "b"]) == [1.0, 0.0]


def test_the_first_tokens_weigh_1_and_those_behind_them_0():
    assert FirstTokens(3)({"position": torch.arange(6)}).tolist() == [1, 1, 1, 0, 0, 0]


def test_atesd_with_the_whole_solution_shows_all_of_it():
    shown, whole = PartialSolution(1.0, answer=True)(PROBLEMS[0]), PROBLEMS[0].solution
    assert whole in shown and PROBLEMS[0].answer in shown


def test_pbsd_with_the_teacher_as_student_begins_at_sigma_of_0():
    made = METHODS["pbsd"].make()
    rollout, source = torch.tensor([0, 0, 1, 2, 2, 3]), torch.tensor([0, 0, 0, 1, 1, 1])
    weights = made.weights({"gap": torch.zeros(6), "rollout": rollout, "source": source})
    torch.testing.assert_close(weights, torch.full((6,), 0.1 * 0.5))


def test_contrasts_of_equal_contexts_are_0():
    for key in ("rlcsd", "cepo"):
        made = METHODS[key].make()
        objective = replace(made.objective, share=0.5)
        _, _, _, case = evaluated(made)
        one = Side(case.t["right"].float())
        views = Teachers(dict.fromkeys(made.view, one))
        found = objective.token_advantages(Side(case.s.detach().float()), views, case.tokens)
        expected = case.tokens.advantage
        torch.testing.assert_close(found, expected)


def test_gears_weight_stays_between_9_and_11_tenths():
    _, _, columns, case = evaluated(METHODS["gear"].make(), spread=3.0)
    ratio = columns["advantage"] / case.tokens.advantage
    assert bool(((ratio >= 0.9 - 1e-6) & (ratio <= 1.1 + 1e-6)).all()) and ratio.unique().numel() > 2
