"""Two contexts side by side, the student's and the teacher's, with the privileged part marked."""

import html
from itertools import takewhile

from opsd_lab.token_view.page import CARD, MONO, PANEL, StaticView
from opsd_lab.token_view.visible import visible_text

MARK = "background:#fde9b8;color:#111111;border-left:5px solid #b45309;padding:2px 6px;display:block"
LABEL = "font-family:system-ui,sans-serif;font-size:11px;font-weight:700;color:#7c2d12;display:block"


def contexts_view(student_text: str, teacher_text: str, *, privileged: str) -> StaticView:
    """Show what each side reads; `privileged` is the part of the teacher's context that the student never sees.

    Leave `privileged` empty for a teacher that sees nothing more. Where that text occurs more than once, the one after
    the two contexts part is marked. White space is kept; special tokens such as `<|im_start|>` show as the text that
    they are.

    Raises:
        ValueError: when `privileged` is not in the teacher's context, after the place where the two part.
    """
    teacher, note = _shown(teacher_text), "the question, and nothing more"
    if privileged:
        parted = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(student_text, teacher_text, strict=False)))
        start = teacher_text.find(privileged, max(0, parted - len(privileged) + 1))
        if start < 0:
            raise ValueError("contexts_view: the privileged text is not in the teacher's own part; pass it as rendered")
        # The mark is a block of its own, which ends its line; the newline after it would be a second one.
        after = teacher_text[start + len(privileged) :].removeprefix("\n")
        teacher = (
            f'{_shown(teacher_text[:start])}<mark style="{MARK}"><span style="{LABEL}">▶ privileged: only the teacher '
            f"sees this</span>{_shown(privileged)}</mark>{_shown(after)}"
        )
        note = "the same question, and the privileged part that is marked"
    panels = _panel("The student reads", "the question, and nothing more", _shown(student_text)) + _panel(
        "The teacher reads", note, teacher
    )
    fragment = f'<div class="opsd-view" style="{CARD}"><div style="display:flex;flex-wrap:wrap;gap:12px">{panels}</div></div>'
    return StaticView(fragment, "The two contexts")


def _panel(title: str, note: str, text: str) -> str:
    return (
        f'<figure style="{PANEL}"><figcaption style="margin-bottom:6px"><strong>{title}</strong> '
        f'<span style="color:#374151">{note}</span></figcaption><div translate="no" style="font-family:{MONO};'
        f'font-size:13px;line-height:1.55;white-space:pre-wrap;overflow-wrap:anywhere">{text}</div></figure>'
    )


def _shown(text: str) -> str:
    return html.escape(visible_text(text, newline="\n")) if text else ""
