"""A figure as SVG that takes on the colours of the page: words stay words.

Each colour of the light theme becomes a CSS variable with that colour to fall back on.
"""

from __future__ import annotations

import io
import re
import warnings

# What is parsed was written by matplotlib a moment before.
from xml.etree import ElementTree as ET

from matplotlib import rc_context
from matplotlib.figure import Figure

from smart_engine.report.theme import DARK, LIGHT, css

__all__ = ["inline", "standalone"]

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_COLOURS = {value: f"var(--smart-{name},{value})" for name, value in LIGHT.items()}
_COLOUR = re.compile("|".join(_COLOURS))
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


def inline(figure: Figure, name: str, says: str) -> str:
    """Return a figure as an `<svg>` element to stand inside a page.

    Args:
        figure: A figure drawn in the light theme.
        name: Begins the element's ids; differs from those of other figures of the page.
        says: What the figure shows, for those who do not see it.
    """
    root = _tree(figure, name, says)
    for key in ("width", "height"):
        del root.attrib[key]
    return _text(root)


def standalone(figure: Figure, says: str) -> str:
    """Return a figure as an SVG file that follows the reader's light or dark theme.

    Args:
        figure: A figure drawn in the light theme.
        says: What the figure shows, for those who do not see it.
    """
    root = _tree(figure, "smart", says)
    style = ET.Element(f"{{{_SVG}}}style")
    style.text = (
        f":root{{{css(LIGHT)};background:var(--smart-paper)}}"
        f"@media(prefers-color-scheme:dark){{:root{{{css(DARK)}}}}}"
    )
    root.insert(0, style)
    return _text(root) + "\n"


def _tree(figure: Figure, name: str, says: str) -> ET.Element:
    """Draw a figure and make its ids, colours and fonts fit into a page."""
    target = io.StringIO()
    quiet = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    words = rc_context({"svg.fonttype": "none", "svg.hashsalt": name})
    with words, warnings.catch_warnings():
        # Words are drawn by the reader's fonts, which have what matplotlib's lacks.
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure.savefig(target, format="svg", transparent=True, metadata=quiet)
    root = ET.fromstring(target.getvalue())  # noqa: S314
    for element in root.iter():
        for key, value in element.attrib.items():
            element.set(key, _fitted(key, value, name))
    root.set("role", "img")
    root.set("aria-label", says)
    return root


def _fitted(key: str, value: str, name: str) -> str:
    """Return an attribute as a page needs it."""
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
