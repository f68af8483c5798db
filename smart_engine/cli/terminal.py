"""What all commands share: exit codes, how errors are shown, how files are written."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from smart_engine.amounts import usd
from smart_engine.errors import InvalidInputError, SmartError
from smart_engine.money.spending import Spend
from smart_engine.report.report import Report
from smart_engine.report.words import escaped, plain

__all__ = [
    "Code",
    "check_results",
    "dollars",
    "plain_errors",
    "say",
    "show",
    "show_json",
    "write",
]


class Code(IntEnum):
    """Exit codes."""

    DONE = 0
    UNPROVEN = 1
    UNUSABLE = 2
    BUDGET = 3
    INTERRUPTED = 130


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show our own errors and all warnings in one line each, on stderr."""
    shown = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    try:
        yield
    except SmartError as error:
        say(f"error: {error}")
        raise typer.Exit(Code.UNUSABLE) from error
    except KeyboardInterrupt as error:
        say("; ".join(["interrupted", *getattr(error, "__notes__", ())]))
        raise typer.Exit(Code.INTERRUPTED) from error
    finally:
        warnings.showwarning = shown


def say(text: str) -> None:
    """Write one line to stderr; stdout is for results."""
    typer.echo(plain(text), err=True)


def show(text: str) -> None:
    """Write lines to stdout, without what would control a terminal."""
    print(*map(escaped, text.split("\n")), sep="\n")


def show_json(value: BaseModel | Mapping[str, Any]) -> None:
    """Write a value as one line of JSON to stdout, in ASCII."""
    if isinstance(value, BaseModel):
        value = json.loads(value.model_dump_json())
    print(json.dumps(value).replace("\x7f", "\\u007f"), flush=True)


def dollars(spent: Spend | Report) -> str:
    """Return what was spent, and what of it is estimated or unknown, if anything is."""
    text = f"{usd(spent.cost)} USD"
    if spent.estimated:
        text += f", {usd(spent.estimated)} of it estimated"
    if spent.unknown:
        text += f", {usd(spent.unknown)} of it unknown, at most"
    return text


def check_results(
    results: Mapping[str, Path | None], sources: Iterable[Path | None], *, force: bool
) -> None:
    """Check that files can be written, before anything is spent on their content.

    Args:
        results: Option → the file to write.
        sources: Files that the command needs as they are.
        force: Whether a result may be written over what is there.

    Raises:
        InvalidInputError: If one cannot be written, or is another one, too.
    """
    taken = {path.resolve() for path in sources if path is not None}
    for field, path in results.items():
        if path is None:
            continue
        hint = None
        if path.resolve() in taken:
            hint = "this is another file of this command already"
        elif path.exists() and not force:
            hint = "is there already; --force writes over it"
        elif path.is_dir() or not os.access(path.parent, os.W_OK):
            hint = "no file can be written there"
        if hint is not None:
            raise InvalidInputError(field, str(path), hint)
        taken.add(path.resolve())


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    begun = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        begun.write_bytes(content)
        begun.replace(path)
    except OSError as error:
        begun.unlink(missing_ok=True)
        raise InvalidInputError("file", str(path), str(error.strerror)) from error
