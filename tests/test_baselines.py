import numpy as np
import pytest
import torch

from opsd_lab.objectives import GRPO, SFT, Tokens
from opsd_lab.policies.head import LogitHead
from opsd_lab.scoring.forward import CompletionStates
from tests.test_fused import losses

V, H, N = 23, 6, 12


def case(seed=0, trains=False):
    """Both sides' states with one head; tokens with advantages and the sampler's log-probabilities, some of them far off."""
    generator = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(H, V, bias=False).requires_grad_(trains)
    with torch.no_grad():
        head.weight.copy_(torch.randn(V, H, generator=generator))
    student = torch.randn(N, H, generator=generator, requires_grad=True)
    teacher = student.detach() + 0.3 * torch.randn(N, H, generator=generator)
    ids = torch.randint(V, (N,), generator=generator)
    advantage = torch.randn(N, generator=generator)
    sampled = (student.detach() @ head.weight.detach().T).log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    sampled = sampled + 0.4 * torch.randn(N, generator=generator)
    states = [CompletionStates(hidden, LogitHead(head)) for hidden in (student, teacher)]
    return student, head, states, Tokens(ids, advantage=advantage, sampled_logprob=sampled)


def by_hand(student, head, teacher, tokens, token_loss):
    """Losses, and their sum's gradient by the states, in float64: token by token, from the definition."""
    hidden, weight = student.detach().double().requires_grad_(), head.weight.detach().double()
    each = []
    for i in range(N):
        logps = torch.log(torch.exp(weight @ hidden[i]) / torch.exp(weight @ hidden[i]).sum())
        refs = torch.log(torch.exp(weight @ teacher[i].double()) / torch.exp(weight @ teacher[i].double()).sum())
        token = int(tokens.ids[i])
        each.append(token_loss(logps[token], refs[token], float(tokens.advantage[i]), float(tokens.sampled_logprob[i])))
    whole = torch.stack(each)
    return whole.detach(), torch.autograd.grad(whole.sum(), hidden)[0]


def likelihood(logp, ref, advantage, sampled):
    return -logp


def policy_gradient(low, high, kl):
    def loss(logp, ref, advantage, sampled):
        ratio = torch.exp(logp - sampled)
        gain = torch.minimum(ratio * advantage, torch.clamp(ratio, 1 - low, 1 + high) * advantage)
        return -gain + kl * (torch.exp(ref - logp) - (ref - logp) - 1)

    return loss


@pytest.mark.parametrize("trains", [False, True], ids=["frozen head", "head trains"])
@pytest.mark.parametrize(
    ("objective", "reference"),
    [
        (SFT(), likelihood),
        (GRPO(), policy_gradient(0.2, 0.2, 0.0)),
        (GRPO(kl=0.1), policy_gradient(0.2, 0.2, 0.1)),
        (GRPO(clip_low=0.1, clip_high=0.28, kl=0.04), policy_gradient(0.1, 0.28, 0.04)),
    ],
    ids=["SFT", "GRPO", "GRPO with KL", "GRPO, clip higher"],
)
def test_losses_and_gradients_are_those_of_the_definition_in_float64(objective, reference, trains):
    for seed in range(4):
        student, head, (ours, theirs), tokens = case(seed, trains)
        found = losses(objective, ours, theirs, tokens)
        found.loss.sum().backward()
        values, gradient = by_hand(student, head, theirs.hidden, tokens, reference)
        torch.testing.assert_close(found.loss.detach().double(), values, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(student.grad.double(), gradient, atol=1e-5, rtol=1e-5)


def test_the_clip_acts_on_some_tokens_and_what_it_took_is_recorded():
    _, _, (ours, _), tokens = case()
    bounded, free = (losses(objective, ours, None, tokens) for objective in (GRPO(), GRPO(clip_low=0.999, clip_high=1e6)))
    assert 0 < int((bounded.columns["clipped"] > 1e-6).sum()) < N
    torch.testing.assert_close(bounded.loss - free.loss, bounded.columns["clipped"])


def test_an_objective_without_a_teacher_has_no_gap():
    _, _, (ours, _), tokens = case()
    for objective in (SFT(), GRPO()):
        columns = losses(objective, ours, None, tokens).columns
        assert columns["gap"].abs().max() == 0 and columns["divergence"].abs().max() == 0


def test_advantages_are_normalised_within_each_problems_group():
    rewards, groups = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0], [7, 7, 7, 3, 3, 3]
    values = np.array([1.0, 0.0, 0.0])
    expected = (values - values.mean()) / (values.std(ddof=1) + 1e-4)
    np.testing.assert_allclose(GRPO().advantages(rewards, groups)[:3], expected, atol=1e-12)
    np.testing.assert_allclose(GRPO(scale=False).advantages(rewards, groups)[:3], values - values.mean(), atol=1e-12)


def test_a_group_whose_rewards_agree_has_no_advantage_and_one_rollout_alone_has_none_either():
    assert GRPO().advantages([1.0, 1.0, 1.0], [0, 0, 0]) == [0.0, 0.0, 0.0]
    assert GRPO().advantages([1.0, 0.0], [0, 1]) == [0.0, 0.0]


def test_bad_options_and_missing_numbers_are_named():
    with pytest.raises(ValueError, match="clip_low is out of range"):
        GRPO(clip_low=0.0)
    _, _, (ours, theirs), tokens = case()
    with pytest.raises(ValueError, match="advantage"):
        losses(GRPO(), ours, theirs, tokens.ids)
    for options, word in (({"clip_low": "0.2"}, "clip_low"), ({"kl": float("nan")}, "kl"), ({"scale": 1}, "scale")):
        with pytest.raises((TypeError, ValueError), match=f"GRPO: {word}"):
            GRPO(**options)
