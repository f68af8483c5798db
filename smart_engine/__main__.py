"""The command `smart`, also by `python -m smart_engine`; extra `cli`."""

from __future__ import annotations

import io
import sys

from smart_engine.errors import MissingExtraError

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        from smart_engine.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        print(MissingExtraError("cli", "the `smart` command"), file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what it cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="smart")


if __name__ == "__main__":
    main()
