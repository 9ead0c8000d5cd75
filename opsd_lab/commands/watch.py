"""`watch`: a run in the terminal, while it goes: how far it is, its numbers, its warnings, and what it wrote last."""

import time
from collections.abc import Iterator
from pathlib import Path
from shutil import get_terminal_size

import pandas as pd
from tyro.conf import Positional

from opsd_lab.runs import Run
from opsd_lab.token_view.visible import visible_text

BARS = "▁▂▃▄▅▆▇█"
SHOWN = ("loss", "divergence", "gap", "student_entropy", "teacher_entropy", "top_overlap", "completion_length", "truncated")
SHOWN += ("reward", "grad_norm", "accuracy", "teacher_accuracy")
CLEAR = "\x1b[H\x1b[2J"
TEXTS, EVENTS = 2, 5


def watch(run: Positional[Path], *, once: bool = False, every: float = 2.0) -> None:
    """Show a run in the terminal until it ends; Ctrl-C stops the watching, not the run.

    Args:
        run: the run's folder.
        once: show it once and end.
        every: seconds between two looks.
    """
    found = Run.open(run)
    try:
        while True:
            width = get_terminal_size().columns
            page = "\n".join(_cut(line, width) for line in lines(found, width))
            print(page if once else CLEAR + page, flush=True)
            if once or not found.is_running:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        print("watching has ended; the run goes on")


def lines(run: Run, width: int) -> Iterator[str]:
    """Yield what is shown of a run, in lines for a terminal of `width` characters."""
    steps, events = run.steps, run.events
    state = "is running" if run.is_running else "has ended" if len(events) else "has not begun"
    yield f"{run.folder} {state}: {len(steps)} steps"
    if len(steps):
        last = steps.iloc[-1]
        seconds = sum(last[name] for name in steps if name.startswith("seconds_"))
        yield f"{last['tokens_generated']:,.0f} tokens written, {last['tokens_trained']:,.0f} trained on, {seconds:,.0f} s"
    yield ""
    for name in SHOWN:
        if name in steps and steps[name].notna().any():
            known = steps[name].dropna()
            yield f"{name.replace('_', ' '):>18} {known.iloc[-1]:>9.4g}  {curve(known, max(8, width - 32))}"
    for event in events.tail(EVENTS).to_dict("records"):
        yield from ("",) if event["step"] == events.tail(EVENTS)["step"].iloc[0] else ()
        yield f"step {event['step']}, {event['kind']}{': ' * bool(event['text'])}{visible_text(event['text'] or ' ')}"
    if kept := list(run.kept("rollouts")):
        yield ""
        yield f"written at step {kept[-1]}:"
        for rollout in run.rollouts(kept[-1])[:TEXTS]:
            yield f"  {visible_text(rollout.problem_id)}: {visible_text(rollout.text, newline='⏎')}"


def curve(values: pd.Series, width: int) -> str:
    """Return numbers as a line of bars, the means of neighbours where there are more than `width`."""
    numbers = values.to_numpy(float)
    parts = min(width, len(numbers))
    means = [part.mean() for part in (numbers[len(numbers) * i // parts : len(numbers) * (i + 1) // parts] for i in range(parts))]
    low, high = min(means), max(means)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1)) if high > low else 0] for value in means)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
