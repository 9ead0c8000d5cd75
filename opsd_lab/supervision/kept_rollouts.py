"""Rollouts that a policy writes once and that stay in a folder, with what they depend on."""

import json
from collections.abc import Sequence
from pathlib import Path

from opsd_lab.basics.files import write_whole
from opsd_lab.contexts import ChatFormat, ContextBuilder
from opsd_lab.identity.parts import differences, parts_of, policy_parts, versions
from opsd_lab.policies.policy import Policy
from opsd_lab.problems.problem import Problem
from opsd_lab.rollouts import HFSampler, Rollout, Sampler, SamplingParams, load_rollouts, sample_rollouts, save_rollouts

ROLLOUTS, NOTE = "rollouts.parquet", "rollouts.json"


def kept_rollouts(
    policy: Policy,
    problems: Sequence[Problem],
    params: SamplingParams,
    chat: ChatFormat,
    folder: str | Path,
    sampler: Sampler | None = None,
) -> list[Rollout]:
    """Return the rollouts that a policy writes of some problems; those that are in the folder already are not written again.

    Args:
        policy: the model.
        problems: what it writes about.
        params: how its rollouts are drawn.
        chat: the student's format.
        folder: where they stay, in rollouts.parquet, with what they depend on beside them.
        sampler: what writes with the policy's weights; left out, `HFSampler`.

    Raises:
        ValueError: when the folder holds rollouts of another model, other problems or other settings; it names what differs.
    """
    path, note = Path(folder) / ROLLOUTS, Path(folder) / NOTE
    of = policy_parts(policy) | versions()
    of |= parts_of("problems", list(problems)) | parts_of("sampling", params) | parts_of("chat", chat)
    of["sampler"] = type(sampler).__qualname__ if sampler else HFSampler.__qualname__
    if path.exists():
        known = json.loads(note.read_text()) if note.exists() else {}
        if other := differences(known, of):
            raise ValueError(f"{path} holds other rollouts: {other}; name another folder, or delete this one")
        return load_rollouts(path)
    contexts = ContextBuilder(policy.tokenizer, student=chat)
    found = sample_rollouts(sampler or HFSampler(policy), contexts, list(problems), params)
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps(of, indent=1) + "\n")
    save_rollouts(found, path)
    return found
