"""The page of the family, `docs/methods.md`: every recipe with its formula, and what cannot be a recipe here."""

import re
import textwrap
from importlib import resources

from opsd_lab.methods.method import GRADES, GROUPS, METHODS, Method

CONFIRMED = {"code": "public code", "paper": "paper", "note": "note", "abstract": "abstract only"}
HEADINGS = {
    "contexts": "What the teacher sees",
    "targets": "Towards what, and how far apart",
    "gaps": "The teacher's log-probability as the advantage",
    "token_weights": "Which tokens count",
    "spans": "Which steps and spans count",
    "advantages": "What an outcome says of a token",
    "gates": "Which rollouts, whose, and when",
}


def methods_page() -> str:
    """Return the page as Markdown."""
    text = resources.files("opsd_lab.methods").joinpath("page.md").read_text(encoding="utf-8")
    counts = {grade: sum(entry.grade == grade for entry in METHODS.values()) for grade in GRADES}
    told = ", ".join(f"{count} by {CONFIRMED[grade]}" for grade, count in counts.items())
    parts = {"count": str(len(METHODS)), "grades": told}
    parts |= {group: _section(group) for group in GROUPS}
    for name, part in parts.items():
        text = text.replace(f"{{{{{name}}}}}", part)
    return text


def _section(group: str) -> str:
    entries = [entry for entry in METHODS.values() if entry.group == group]
    head = "| method | arXiv | `methods." + group + "` | confirmed by |\n| --- | --- | --- | --- |"
    rows = [f"| {e.name} | {e.arxiv} | `{e.key}` | {CONFIRMED[e.grade]} |" for e in entries]
    return "\n\n".join([f"## {HEADINGS[group]}", "\n".join([head, *rows]), *(_told(entry) for entry in entries)])


def _told(entry: Method) -> str:
    parts = " ".join([entry.formula, *entry.notes]).split("`")  # every other one is code, in which nothing is a mark
    told = "`".join(part if i % 2 else re.sub(r"([*_])", r"\\\1", part) for i, part in enumerate(parts))
    return textwrap.fill(f"**{entry.name}.** {told}", 130, break_long_words=False, break_on_hyphens=False)
