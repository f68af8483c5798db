"""Answers as text, for a store: what was bought is kept, whatever it holds.

An answer is plain data, but for what its provider hung on it: sound, dates, objects of
a client's own. These become what JSON has for them, or else the name of their kind: how
they show themselves may hold a key. Halves of letters, as an answer that was cut off
may end with, come back as they were.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from numbers import Real
from typing import Any, Literal

from pydantic_core import to_jsonable_python

__all__ = ["as_text"]


def as_text(told: Mapping[str, Any]) -> str:
    r"""Return what an answer holds as text, of ASCII alone; `json.loads` reads it.

    Example:
        ```python
        from datetime import date

        told = {"text": "yes \ud83d", "at": date(2024, 5, 1), "by": object()}
        found = json.loads(as_text(told))
        assert found["text"] == told["text"]
        assert (found["at"], found["by"]) == ("2024-05-01", "<object>")
        ```
    """
    return json.dumps(told, default=_plain, skipkeys=True)


def _plain(value: Any) -> Any:
    """Return what stands for a value that JSON does not know."""
    if isinstance(value, Real):  # numpy's
        return float(value)
    for form in _BYTES:
        with suppress(ValueError):
            return to_jsonable_python(value, bytes_mode=form)
    return f"<{type(value).__qualname__}>"


_BYTES: tuple[Literal["utf8", "base64"], ...] = ("utf8", "base64")
"""How bytes are written: as the text that they are, if they are one."""
