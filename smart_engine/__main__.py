"""The `smart` command; it needs the extra `cli`."""

from __future__ import annotations

import sys

from smart_engine.errors import MissingExtraError

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say how to install it."""
    try:
        from smart_engine.cli import app
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        print(MissingExtraError("cli", "the `smart` command"), file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error
    app()


if __name__ == "__main__":
    main()
