"""The command line as a whole: its commands, and how their options are read."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from smart_engine.cli.batches import cancel_command, jobs_command
from smart_engine.cli.demo import demo_command
from smart_engine.cli.estimate import estimate_command
from smart_engine.cli.imports import import_command
from smart_engine.cli.profile import profile_command
from smart_engine.cli.replay import replay_command, simulate_command
from smart_engine.cli.report import report_command, verify_command
from smart_engine.cli.run import run_command
from smart_engine.cli.terminal import plain_errors

__all__ = ["app"]

COMMANDS: dict[str, Callable[..., None]] = {
    "import": import_command,
    "replay": replay_command,
    "simulate": simulate_command,
    "demo": demo_command,
    "verify": verify_command,
    "report": report_command,
    "profile": profile_command,
    "estimate": estimate_command,
    "run": run_command,
    "jobs": jobs_command,
    "cancel": cancel_command,
}

app = typer.Typer(
    no_args_is_help=True,
    help="Cheaper answers with a guarantee.",
    epilog=(
        "Exit codes: 0 done; 1 a claim does not follow, or rows stay without an "
        "answer; 2 an option or a file cannot be used; 3 the budget ended first; "
        "130 interrupted."
    ),
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"smart-llm {importlib.metadata.version('smart-llm')}")
        raise typer.Exit


@app.callback()
def _app(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Cheaper answers with a guarantee."""


def _for_typer(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as typer reads it, with its errors shown in plain lines.

    typer takes options from the signature, in the order of `--help`. A parameter whose
    type is a dataclass, such as `options.Calls`, stands for the fields of that class.
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if dataclasses.is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            fields = inspect.signature(groups[name], eval_str=True).parameters
            parameters += fields.values()
        else:
            parameters.append(parameter)

    def flat(**given: Any) -> None:
        for name, group in groups.items():
            names = [field.name for field in dataclasses.fields(group)]
            given[name] = group(**{field: given.pop(field) for field in names})
        with plain_errors():
            command(**given)

    flat.__doc__ = command.__doc__
    flat.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    )
    return flat


for _name, _command in COMMANDS.items():
    app.command(_name)(_for_typer(_command))
