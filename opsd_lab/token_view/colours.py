"""A zero-centred, symmetric, colour-blind safe scale on which black text is readable everywhere."""

import math

# Orange below zero, blue above: told apart in every common colour blindness, and never darker than black text bears.
BELOW = ("#f3f3f3", "#fddcb5", "#fbb15f", "#ea7d12")
ABOVE = ("#f3f3f3", "#d2e5f6", "#93c4ee", "#4d9ae0")
TEXT = "#111111"


def colour(value: float, scale: float) -> str:
    """Return the hex colour of `value` on the scale from `-scale` to `scale`; values beyond it get the end's colour."""
    stops = ABOVE if value >= 0 else BELOW
    place = min(abs(value) / scale, 1.0) * (len(stops) - 1)
    left = min(math.floor(place), len(stops) - 2)
    pairs = zip(_channels(stops[left]), _channels(stops[left + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (place - left)):02x}" for a, b in pairs)


def gradient(*, signed: bool) -> str:
    """Return the scale as a CSS gradient from left to right; an unsigned one starts at zero."""
    stops = (*reversed(BELOW), *ABOVE[1:]) if signed else ABOVE
    return f"linear-gradient(to right, {', '.join(stops)})"


def contrast(first: str, second: str) -> float:
    """Return the WCAG 2 contrast ratio of two hex colours, from 1 to 21."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _channels(hex_colour: str) -> tuple[int, int, int]:
    return int(hex_colour[1:3], 16), int(hex_colour[3:5], 16), int(hex_colour[5:7], 16)


def _luminance(hex_colour: str) -> float:
    linear = [(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in map(_unit, _channels(hex_colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _unit(channel: int) -> float:
    return channel / 255
