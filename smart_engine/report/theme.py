"""Every colour of pages and pictures, light and dark, by its meaning.

Text has a contrast of 4.5 : 1, drawings one of 3 : 1 (WCAG 2.2, AA). Models' colours
remain distinct for colour-blind readers and are never the only sign: bars repeat their
order, lines differ in mark and dash, and every figure is in a table, too.
"""

from __future__ import annotations

__all__ = ["DARK", "LIGHT", "MODELS", "css"]

LIGHT = {
    "ink": "#1c2430",
    "soft": "#566171",
    "rule": "#d5dae1",
    "paper": "#fdfdfc",
    "panel": "#f3f4f2",
    "label": "#fffffe",
    "good": "#0b6b4b",
    "bad": "#a8321e",
    "area": "#dcece4",
    "m0": "#2b303b",
    "m1": "#0a4496",
    "m2": "#c3470f",
    "m3": "#1c7a56",
    "m4": "#87558e",
}
"""Colours on a light background; pictures are drawn in them."""

DARK = {
    "ink": "#e9ecf0",
    "soft": "#a7b1be",
    "rule": "#39424e",
    "paper": "#14181e",
    "panel": "#1d232b",
    "label": "#0d1116",
    "good": "#6fd3a9",
    "bad": "#f49a88",
    "area": "#1c3a2f",
    "m0": "#8492a0",
    "m1": "#b9d8fa",
    "m2": "#e8702a",
    "m3": "#3cd8a2",
    "m4": "#d46ad4",
}
"""The same on a dark background."""

MODELS = tuple(name for name in LIGHT if name.startswith("m"))
"""Names of the models' colours: the reference's first, then the candidates'."""


def css(colours: dict[str, str]) -> str:
    """Return the colours as CSS variables.

    Example:
        ```python
        assert css({"ink": "#000000"}) == "--smart-ink:#000000"
        ```
    """
    return ";".join(f"--smart-{name}:{value}" for name, value in colours.items())
