"""`smart verify`: whether the claim of a certificate follows from its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from smart_engine.batch.verification import verify
from smart_engine.cli.options import JsonOption
from smart_engine.cli.terminal import Code
from smart_engine.offline.traces import read_certificate

__all__ = ["verify_command"]


def verify_command(
    certificate: Annotated[Path, typer.Argument(help="A certificate, JSON.")],
    as_json: JsonOption = False,
) -> None:
    """Does the claim follow? Recomputes a certificate from its recorded draws."""
    record = read_certificate(certificate)
    checks = verify(record)
    holds = all(check.holds for check in checks)
    if as_json:
        listed = [check._asdict() for check in checks]
        print(json.dumps({"holds": holds, "claim": record.claim, "checks": listed}))
    else:
        for check in checks:
            print("holds" if check.holds else "FAILS", "-", check.statement)
        print(record.claim if holds else "The claim does not follow from the record.")
    if not holds:
        raise typer.Exit(Code.UNPROVEN)
