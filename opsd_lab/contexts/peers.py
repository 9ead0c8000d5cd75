"""Views of a problem's other rollouts: what another attempt of the same step did right or wrong."""

from dataclasses import dataclass

from opsd_lab.basics.options import whole
from opsd_lab.contexts.views import SHOWN_SOLUTION, Shown, View, WrittenView, needs_rollout
from opsd_lab.problems.problem import Problem

SHOWN_FAILURE = "Here is an attempt that is wrong:"


def _peers(rollout: object, group: object, *, right: bool) -> list[str]:
    """Return the texts of the other attempts that are right or that are wrong, each once."""
    found = [peer.text for peer, reward in group.peers(rollout) if (reward > 0) == right]
    return list(dict.fromkeys(text for text in found if text.strip()))


@dataclass(frozen=True)
class SuccessfulPeer:
    """Shows the `number`-th other attempt that is right, from 0, after `intro`; where there are fewer, nothing is shown (None)."""

    number: int = 0
    intro: str = SHOWN_SOLUTION

    right = True

    def __post_init__(self) -> None:
        whole(f"{type(self).__name__}: number", self.number, least=0)

    def __call__(self, problem: Problem, rollout: object, group: object) -> str | None:
        """Return the text."""
        found = _peers(rollout, group, right=self.right)
        return f"{self.intro}\n{found[self.number]}" if len(found) > self.number else None


@dataclass(frozen=True)
class FailedPeer(SuccessfulPeer):
    """Shows the `number`-th other attempt that is wrong, from 0, after `intro`; where there are fewer, nothing is shown (None).

    By default it stands under the words that present a verified solution, so that a contrast with one is of what they say.
    """

    right = False


@dataclass(frozen=True)
class MixedPeers:
    """Shows up to `right` other attempts that are right and up to `wrong` that are wrong; None where none is right."""

    right: int = 2
    wrong: int = 1

    def __call__(self, problem: Problem, rollout: object, group: object) -> str | None:
        """Return the text."""
        good, bad = (_peers(rollout, group, right=right) for right in (True, False))
        if not good:
            return None
        shown = [f"{SHOWN_SOLUTION}\n{text}" for text in good[: self.right]]
        return "\n".join(shown + [f"{SHOWN_FAILURE}\n{text}" for text in bad[: self.wrong]])


@dataclass(frozen=True)
class ShortestPeer:
    """Shows the shortest other attempt that is right, after `intro`; None where there is none."""

    intro: str = SHOWN_SOLUTION

    def __call__(self, problem: Problem, rollout: object, group: object) -> str | None:
        """Return the text."""
        found = _peers(rollout, group, right=True)
        return f"{self.intro}\n{min(found, key=len)}" if found else None


@dataclass(frozen=True)
class FirstOf:
    """Shows what the first of some views shows that has something to show.

    Raises:
        ValueError: for no views, or one that the teacher would have to write.
    """

    views: tuple[View, ...]

    def __post_init__(self) -> None:
        if not self.views:
            raise ValueError("FirstOf: there are no views")
        if any(isinstance(view, WrittenView) for view in self.views):
            raise ValueError("FirstOf: a WrittenView is written by the teacher, and cannot stand among others; make it a view alone")

    def __call__(self, problem: Problem, rollout: object, group: object) -> str | Shown | None:
        """Return what is shown; None where no view has anything."""
        for view in self.views:
            shown = view(problem, rollout, group) if needs_rollout(view) else view(problem)
            if shown is not None:
                return shown
        return None
