"""Commands that put a table's rows to chat models; they need the extra `run`.

Nothing here loads LangChain before a command runs.
"""

from __future__ import annotations

import typer

from langchain_smart.cli.estimating import estimate_command
from langchain_smart.cli.running import run_command

__all__ = ["add_commands"]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the engine's."""
    app.command("estimate")(estimate_command)
    app.command("run")(run_command)
