"""The command line as a whole: every command, those that ask models included.

Nothing here loads LangChain before a command runs.
"""

from __future__ import annotations

from smart_engine.cli.commands import app
from smart_engine.cli.estimate import estimate_command
from smart_engine.cli.run import run_command

__all__ = ["app"]

app.command("estimate")(estimate_command)
app.command("run")(run_command)
