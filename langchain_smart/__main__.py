"""The command `smart`: the engine's commands, and those that ask chat models.

It begins here because arrows point from adapters to the engine.
"""

from __future__ import annotations

from typing import Any

from smart_engine.__main__ import main as run_engine

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say how to install it."""
    run_engine(_add)


def _add(app: Any) -> None:
    """Add the commands that ask chat models."""
    from langchain_smart.cli import add_commands

    add_commands(app)


if __name__ == "__main__":
    main()
