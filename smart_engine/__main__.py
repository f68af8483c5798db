"""The commands that ask no model, by `python -m smart_engine`; extra `cli`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from smart_engine.errors import MissingExtraError

__all__ = ["main"]


def main(more: Callable[[Any], None] | None = None) -> None:
    """Run the command line, or say how to install it.

    Args:
        more: Adds an adapter's commands to the app.
    """
    try:
        from smart_engine.cli import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        print(MissingExtraError("cli", "the `smart` command"), file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error
    if more is not None:
        more(app)
    app(prog_name="smart")


if __name__ == "__main__":
    main()
