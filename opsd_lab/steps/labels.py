"""Verdicts on reasoning steps, put on the tokens that hold them."""

from collections.abc import Callable, Mapping
from typing import Literal

from opsd_lab.steps.arithmetic import arithmetic_steps
from opsd_lab.steps.segmentation import label_segments, segments
from opsd_lab.steps.step import Step
from opsd_lab.steps.tokens import error_phases, span_tokens, token_steps
from opsd_lab.tokens.table import TokenTable

By = Literal["equations", "lines", "sentences", "think"]


def label_steps(table: TokenTable, by: By = "equations", equations: Callable[[str], list[Step]] = arithmetic_steps) -> TokenTable:
    """Return the table with the columns step, label, label_source and error_phase filled, rollout by rollout.

    `equations` finds and judges the equations in a rollout's text, which is that of its tokens joined. They are the steps
    themselves, or what decides about the lines, the sentences, or the parts in and outside `<think>` that they begin in.

    Raises:
        ValueError: for another way to cut.
    """

    def steps_of(text: str, number: int) -> list[Step]:
        found = equations(text)
        return found if by == "equations" else label_segments(text, segments(text, by), found)

    return _labelled(table, steps_of)


def label_first_error(
    table: TokenTable,
    spans: Mapping[int, tuple[int, int] | None],
    *,
    by: By = "sentences",
    cut: Literal["widen", "error"] = "widen",
) -> TokenTable:
    """Return the table labelled by people who marked each rollout's first wrong step; the source of its labels is "human".

    `spans` gives for each rollout's number the marked span of characters in the text of its tokens, or None where a person found
    no mistake. The segments that the span overlaps are "incorrect", those before it "correct", those after it "unverifiable",
    since nobody judged them; without a mistake all are "correct". `error_phase` follows the marked span itself: a span whose
    edge cuts a token is widened to the whole token, or refused with `cut="error"`.

    Raises:
        ValueError: when a rollout has no entry in `spans`, or a span does not lie in its text, holds nothing visible, or cuts a
            token that may not be cut.
    """
    if missing := sorted(set(table.frame["rollout"]) - spans.keys()):
        raise ValueError(f"label_first_error: rollout {missing[0]} has no entry in spans; give it None if it has no mistake")

    def steps_of(text: str, number: int) -> list[Step]:
        return [
            Step(part.start, part.end, text[part.start : part.end], _verdict(part.start, part.end, spans[number]), "human", part.kind)
            for part in segments(text, by)
        ]

    labelled = _labelled(table, steps_of)
    phases = labelled.frame["error_phase"].copy()
    for number, rows in labelled.frame.sort_values("position").groupby("rollout", sort=False):
        tokens, span = rows["token"].tolist(), spans[int(number)]
        try:
            first, end = span_tokens(tokens, *span, cut) if span else (len(tokens), len(tokens))
        except ValueError as error:
            raise ValueError(f"label_first_error: rollout {number}: {error}") from None
        phases[rows.index] = ["before" if i < first else "first_error" if i < end else "after" for i in range(len(tokens))]
    return labelled.with_columns(error_phase=phases)


def _verdict(start: int, end: int, wrong: tuple[int, int] | None) -> Literal["correct", "incorrect", "unverifiable"]:
    if wrong is None or end <= wrong[0]:
        return "correct"
    return "unverifiable" if start >= wrong[1] else "incorrect"


def _labelled(table: TokenTable, steps_of: Callable[[str, int], list[Step]]) -> TokenTable:
    columns: dict[str, list] = {"step": [], "label": [], "label_source": [], "error_phase": []}
    order = []
    for number, rows in table.frame.groupby("rollout", sort=False):
        rows = rows.sort_values("position")
        tokens = rows["token"].tolist()
        steps = steps_of("".join(tokens), int(number))
        of_tokens, labels = token_steps(tokens, steps)
        columns["step"] += of_tokens
        columns["label"] += labels
        columns["label_source"] += [steps[i].source if i >= 0 else "" for i in of_tokens]
        columns["error_phase"] += error_phases(tokens, steps)
        order += rows.index.tolist()
    filled = table.frame.loc[order].assign(**columns).sort_index()
    return TokenTable(filled, table.top)
