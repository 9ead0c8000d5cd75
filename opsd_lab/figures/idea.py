"""The idea of on-policy self-distillation in one picture, as an SVG that runs no script and loads nothing."""

import base64
import html

from opsd_lab.token_view.page import StaticView

TITLE = "On-policy self-distillation in one picture"
DESCRIPTION = (
    "One model reads two contexts. The student context holds the question; the teacher context holds the question and "
    "its reference solution. The student writes one rollout, 7 + 5 = 13. The teacher scores the very same tokens. The "
    "divergence of the two is small for every token but the wrong 13, where it is large. Its mean is the loss, and the "
    "gradient flows into the student only."
)
BLUE, AMBER, RED, GREY, INK = "#0072B2", "#B45309", "#B93C00", "#6b7280", "#111827"
DASHED = 'stroke-dasharray="5 3"'
TOKENS = ("7", "+", "5", "=", "13", ".")
WRONG = "13"
# How far apart teacher and student are at each token, as bar heights in pixels: an illustration, not a measurement.
HEIGHTS = (5, 3, 6, 3, 62, 4)
WIDTH, HEIGHT = 1080, 500
FIRST_CHIP, CHIP, PITCH = 640, 54, 66


class IdeaFigure(StaticView):
    """The picture; `svg` is its source, and a notebook shows it as an image with a description in words."""

    def __init__(self) -> None:
        image = f"data:image/svg+xml;base64,{base64.b64encode(self.svg.encode()).decode()}"
        super().__init__(
            # An image, because JupyterLab strips inline SVG from the outputs of a notebook that it does not trust yet.
            f'<div style="overflow-x:auto"><img src="{image}" alt="{html.escape(DESCRIPTION)}" '
            f'width="{WIDTH}" style="width:100%;min-width:720px;max-width:1080px;height:auto;display:block"></div>',
            TITLE,
        )

    @property
    def svg(self) -> str:
        """The SVG's source."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            "aria-labelledby=\"idea-title idea-desc\" font-family=\"system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', "
            f'sans-serif" font-size="15" fill="{INK}"><title id="idea-title">{TITLE}</title>'
            f'<desc id="idea-desc">{DESCRIPTION}</desc>{_arrowheads()}'
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#ffffff" stroke="#c9ced6"/>'
            f"{_contexts()}{_models()}{_tokens(86, BLUE, '')}{_tokens(382, AMBER, DASHED)}{_divergence()}"
            f"{_gradient()}</svg>"
        )


def draw_idea() -> IdeaFigure:
    """Draw one model with two contexts, one rollout, the divergence at each token, and where the gradient goes."""
    return IdeaFigure()


def _text(x: float, y: float, words: str, extra: str = "") -> str:
    return f'<text x="{x}" y="{y}" {extra}>{html.escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, fill: str, stroke: str) -> str:
    place = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="8"'
    return f'<rect {place} fill="{fill}" stroke="{stroke}" stroke-width="2"/>'


def _arrow(path: str, colour: str, head: str, extra: str = "") -> str:
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2.5" marker-end="url(#{head})" {extra}/>'


def _arrowheads() -> str:
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="6" markerHeight="6" orient="auto">'
        f'<path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
        for name, colour in (("blue", BLUE), ("amber", AMBER))
    )
    return f"<defs>{heads}</defs>"


def _contexts() -> str:
    question = ("Mia has 7 apples and buys 5 more.", "How many apples has she now?")
    parts = [
        _box(28, 48, 310, 112, "#eff6fc", BLUE),
        _text(44, 76, "Student context", f'font-weight="700" fill="{BLUE}"'),
        *(_text(44, 106 + 24 * i, line) for i, line in enumerate(question)),
        _box(28, 318, 310, 152, "#fdf6e7", AMBER),
        _text(44, 346, "Teacher context", f'font-weight="700" fill="{AMBER}"'),
        *(_text(44, 376 + 24 * i, line) for i, line in enumerate(question)),
        f'<rect x="42" y="414" width="282" height="44" rx="5" fill="#fde9b8" stroke="{AMBER}" stroke-dasharray="5 3"/>',
        _text(52, 433, "+ reference solution (privileged)", f'font-size="13" font-weight="600" fill="{AMBER}"'),
        _text(52, 451, "7 + 5 = 12. Mia has 12 apples now.", 'font-size="14"'),
    ]
    return "".join(parts)


def _models() -> str:
    middle = 'text-anchor="middle"'
    parts = [
        _arrow("M338 104H398", BLUE, "blue"),
        _arrow("M338 400H398", AMBER, "amber"),
        _box(402, 62, 152, 84, BLUE, BLUE),
        _text(478, 96, "Student", f'{middle} font-size="18" font-weight="700" fill="#ffffff"'),
        _text(478, 122, "the model, trained", f'{middle} font-size="14" fill="#ffffff"'),
        _box(402, 358, 152, 84, "#ffffff", AMBER),
        _text(478, 392, "Teacher", f'{middle} font-size="18" font-weight="700" fill="{AMBER}"'),
        _text(478, 418, "the same model", f'{middle} font-size="14"'),
        _arrow("M554 104H626", BLUE, "blue"),
        _arrow("M554 400H626", AMBER, "amber"),
        _text(FIRST_CHIP, 62, "① The student writes one rollout", f'font-weight="600" fill="{BLUE}"'),
        _text(FIRST_CHIP, 448, "② The teacher scores the very same tokens", f'font-weight="600" fill="{AMBER}"'),
    ]
    return "".join(parts)


def _tokens(y: float, colour: str, dashes: str) -> str:
    parts = []
    for i, token in enumerate(TOKENS):
        x = FIRST_CHIP + PITCH * i
        fill = "#fdeadb" if token == WRONG else "#ffffff"
        parts.append(
            f'<rect x="{x}" y="{y}" width="{CHIP}" height="36" rx="6" fill="{fill}" stroke="{colour}" stroke-width="2" {dashes}/>'
        )
        centred = 'text-anchor="middle" font-size="17" font-family="ui-monospace, Menlo, \'DejaVu Sans Mono\', monospace"'
        parts.append(_text(x + CHIP / 2, y + 24, token, centred))
    return "".join(parts)


def _divergence() -> str:
    base = 300
    parts = [
        _text(FIRST_CHIP, 176, "③ How far apart are the two, token by token?", 'font-weight="600"'),
        f'<path d="M{FIRST_CHIP - 6} {base}H{FIRST_CHIP + 5 * PITCH + CHIP + 6}" stroke="{GREY}" stroke-width="1.5"/>',
        _text(FIRST_CHIP, 326, "mean divergence = the loss", f'font-size="14" fill="{GREY}"'),
    ]
    for i, height in enumerate(HEIGHTS):
        fill = RED if TOKENS[i] == WRONG else INK
        middle = FIRST_CHIP + PITCH * i + CHIP / 2
        parts.append(
            f'<path d="M{middle} 126V146M{middle} 340V378" stroke="{GREY}" stroke-width="1" stroke-dasharray="2 4"/>'
            f'<rect x="{middle - 16}" y="{base - height}" width="32" height="{height}" fill="{fill}"/>'
        )
    wrong = FIRST_CHIP + PITCH * TOKENS.index(WRONG) + CHIP / 2
    parts.append(_text(wrong, base - 74, "the slip", f'text-anchor="middle" font-size="14" font-weight="700" fill="{RED}"'))
    return "".join(parts)


def _gradient() -> str:
    parts = [
        _arrow(f"M{FIRST_CHIP - 20} 262H478V152", BLUE, "blue"),
        _text(468, 214, "④ gradient", f'text-anchor="end" font-weight="600" fill="{BLUE}"'),
        _text(468, 236, "into the student only", f'text-anchor="end" font-weight="600" fill="{BLUE}"'),
        f'<path d="M478 266V352" stroke="{GREY}" stroke-width="2" stroke-dasharray="3 5"/>',
        f'<path d="M470 306L486 322M486 306L470 322" stroke="{GREY}" stroke-width="2.5"/>',
        _text(498, 319, "no gradient", f'font-size="14" fill="{GREY}"'),
    ]
    return "".join(parts)
