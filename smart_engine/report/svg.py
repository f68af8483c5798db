"""A figure as SVG that follows the colours of its page and keeps text as text.

Each colour of the light theme becomes a CSS variable that falls back to that colour, so
figures must be drawn in the light theme. `alt_text` says in words what a figure shows.
"""

from __future__ import annotations

import io
import re
import warnings

# It parses only what matplotlib has just written.
from xml.etree import ElementTree as ET

from matplotlib import rc_context
from matplotlib.figure import Figure

from smart_engine.report.theme import DARK, LIGHT, css

__all__ = ["inline", "standalone"]

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_COLOURS = {value: f"var(--smart-{name},{value})" for name, value in LIGHT.items()}
_COLOUR = re.compile("|".join(_COLOURS))
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


def inline(figure: Figure, name: str, alt_text: str) -> str:
    """Return a figure as an `<svg>` element; `name`, unique in a page, prefixes ids."""
    root = _tree(figure, name, alt_text)
    for key in ("width", "height"):
        del root.attrib[key]
    return _text(root)


def standalone(figure: Figure, alt_text: str) -> str:
    """Return a figure as an SVG file that follows the reader's light or dark theme."""
    root = _tree(figure, "smart", alt_text)
    style = ET.Element(f"{{{_SVG}}}style")
    style.text = (
        f":root{{{css(LIGHT)};background:var(--smart-paper)}}"
        f"@media(prefers-color-scheme:dark){{:root{{{css(DARK)}}}}}"
    )
    root.insert(0, style)
    return _text(root) + "\n"


def _tree(figure: Figure, name: str, alt_text: str) -> ET.Element:
    """Draw a figure and adapt its ids, colours and fonts to a page."""
    target = io.StringIO()
    quiet = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    words = rc_context({"svg.fonttype": "none", "svg.hashsalt": name})
    with words, warnings.catch_warnings():
        # The reader's fonts draw the text and have the glyphs that matplotlib's lack.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(target, format="svg", transparent=True, metadata=quiet)
    root = ET.fromstring(target.getvalue())  # noqa: S314
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _adapted(key, value, name))
    root.set("role", "img")
    root.set("aria-label", alt_text)
    return root


def _adapted(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == f"{{{_XLINK}}}href":
        return value.replace("#", f"#{name}-", 1)
    value = value.replace("url(#", f"url(#{name}-")
    value = re.sub(r"'DejaVu Sans'[^;]*?(?=;|$)", _FONT, value)
    return _COLOUR.sub(lambda match: _COLOURS[match[0]], value)


def _text(root: ET.Element) -> str:
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    return ET.tostring(root, encoding="unicode")
