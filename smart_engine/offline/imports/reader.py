"""Reads a log: finds its format by its content, and checks every call that it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic_core import to_json

from smart_engine.errors import InvalidInputError, choose
from smart_engine.offline.imports.content import digest
from smart_engine.offline.imports.langfuse import LANGFUSE
from smart_engine.offline.imports.langsmith import LANGSMITH
from smart_engine.offline.imports.litellm import LITELLM
from smart_engine.offline.imports.logged import Format, LoggedCall, Record, Skipped
from smart_engine.offline.imports.openai_batch import OPENAI_BATCH
from smart_engine.offline.imports.openai_chat import OPENAI_CHAT
from smart_engine.offline.imports.otel import OTEL
from smart_engine.offline.imports.records import records
from smart_engine.offline.imports.table import COLUMNS, TABLE

__all__ = ["FORMATS", "read_log"]

FORMATS = {
    each.name: each
    for each in (OTEL, LANGSMITH, LANGFUSE, LITELLM, OPENAI_BATCH, OPENAI_CHAT, TABLE)
}
"""By name, the most particular first: a record is of the first format that it fits."""


def read_log(
    file: str, content: bytes, format_name: str | None = None
) -> Iterator[tuple[str, LoggedCall | Skipped]]:
    """Yield each call of a log, or why there is none, with its place in the file.

    Args:
        file: Name of the file, for errors.
        content: What is in it.
        format_name: Name of its format; found by its content if not given.

    Raises:
        InvalidInputError: If the file is empty or of no known format.
    """
    given = list(records(content))
    if not given:
        raise InvalidInputError("FILE", file, "there is nothing in it")
    chosen = choose("format", format_name, FORMATS) if format_name else _format(given)
    if chosen is None:
        wanted = "; ".join(" or ".join(names) for names in COLUMNS.values())
        hint = (
            f"of no known format ({', '.join(FORMATS)}); --format names one, and a "
            f"plain table has the columns {wanted}"
        )
        raise InvalidInputError("FILE", file, hint)
    for place, record in given:
        if isinstance(record, Skipped):
            yield place, record
        elif not chosen.fits(record) and chosen is not TABLE:
            yield place, Skipped(f"no record of {chosen.name}")
        else:
            for call in _calls(chosen, record):
                yield place, call


def _calls(chosen: Format, record: Record) -> list[LoggedCall | Skipped]:
    try:
        return [*map(_checked, chosen.read(record))]
    except RecursionError:
        return [Skipped("nested too deeply")]


def _format(given: Sequence[tuple[str, object]]) -> Format | None:
    """Return the format that the first record of any has."""
    for _, record in given:
        if isinstance(record, dict):
            for each in FORMATS.values():
                if each.fits(record):
                    return each
    return None


def _checked(call: LoggedCall | Skipped) -> LoggedCall | Skipped:
    """Return a call if it can be told from others and be written, or why it cannot."""
    if isinstance(call, Skipped):
        return Skipped(call.reason.encode(errors="replace").decode())
    if not call.model:
        return Skipped("no model is named")
    if not call.answer:
        return Skipped("no answer is logged")
    if call.asked in (None, "", [], {}):
        return Skipped("no input is logged")
    digest(call.asked)
    try:
        to_json(call._replace(asked=None))
    except ValueError:
        return Skipped("no valid Unicode, or nested too deeply")
    return call
