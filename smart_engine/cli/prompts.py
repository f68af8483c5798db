"""Prompts with places for a row's columns: `Spam or ham?  {mail}`."""

from __future__ import annotations

import json
import string
from pathlib import Path

from smart_engine.cli.tables import Table
from smart_engine.errors import InvalidInputError

__all__ = ["fill", "read_text"]


def read_text(field: str, given: str) -> str:
    """Return a text that was given as such, or as `@FILE`.

    Raises:
        InvalidInputError: If the file cannot be read.
    """
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(field, given, str(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(field, given, "this is no UTF-8") from error


def fill(template: str, table: Table) -> list[str]:
    """Return the prompt of every row.

    Args:
        template: The prompt, with `{column}` where a value belongs; braces that stand
            for themselves are doubled.
        table: The rows.

    Raises:
        InvalidInputError: If the template cannot be read or names no column, or a row
            lacks one that it names.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        hint = f"{error}; write {{{{ and }}}} for braces that stand for themselves"
        raise InvalidInputError("prompt", template, hint) from error
    columns = [column for _, column, _, _ in parts if column is not None]
    if not columns or any(form or conversion for _, _, form, conversion in parts):
        hint = "write {column} where a value belongs, and {{ }} for other braces"
        raise InvalidInputError("prompt", template, hint)
    prompts = []
    for index, row in enumerate(table.rows):
        for column in columns:
            if column not in row:
                hint = f"{table.where(index)} has only {', '.join(row) or 'nothing'}"
                raise InvalidInputError("prompt", f"{{{column}}}", hint)
        filled = (
            literal + ("" if column is None else _text(row[column]))
            for literal, column, _, _ in parts
        )
        prompts.append("".join(filled))
    return prompts


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
