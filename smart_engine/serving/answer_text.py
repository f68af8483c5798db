"""Answers as text, for a store, whatever they hold.

An answer is plain data, but for what its provider attached: audio, dates, objects of a
client's own. These become what JSON has for them, or else the name of their type: their
`repr` may hold a key. Lone surrogates, which an answer that was cut off may end with,
come back as they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from numbers import Real
from typing import Any

from pydantic_core import to_jsonable_python

__all__ = ["as_text"]


def as_text(answer: Mapping[str, Any]) -> str:
    r"""Return what an answer holds as text, of ASCII alone; `json.loads` reads it.

    Example:
        ```python
        from datetime import date

        answer = {"text": "yes \ud83d", "at": date(2024, 5, 1), "by": object()}
        found = json.loads(as_text(answer))
        assert found["text"] == answer["text"]
        assert (found["at"], found["by"]) == ("2024-05-01", "<object>")
        ```
    """
    return json.dumps(answer, default=_plain, skipkeys=True)


def _plain(value: Any) -> Any:
    """Return what stands for a value that JSON does not know."""
    if isinstance(value, Real):  # numpy's
        return float(value)
    with suppress(ValueError):
        return to_jsonable_python(value, bytes_mode="utf8")
    with suppress(ValueError):  # bytes that are no text
        return to_jsonable_python(value, bytes_mode="base64")
    return f"<{type(value).__qualname__}>"
