"""`smart report` and `smart verify`: what certificates and stores say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Argument, Exit, Option

from smart_engine.batch.certificate import Certificate
from smart_engine.batch.verification import unseen, verify
from smart_engine.cli import options
from smart_engine.cli.terminal import (
    Code,
    check_results,
    dollars,
    show,
    show_json,
    write,
)
from smart_engine.errors import InvalidInputError
from smart_engine.money.spending import Spend
from smart_engine.offline.traces import read_certificate
from smart_engine.report.report import Report
from smart_engine.report.words import plain
from smart_engine.store.store import read_bought

__all__ = ["report_command", "verify_command"]


def verify_command(
    certificate: Annotated[
        Path, Argument(metavar="CERTIFICATE", help="A certificate, JSON.")
    ],
    as_json: options.Json = False,
) -> None:
    """Does the claim follow? Recomputes a certificate from its recorded draws."""
    record = read_certificate(certificate)
    checks = verify(record)
    holds = all(check.holds for check in checks)
    if as_json:
        listed = [check._asdict() for check in checks]
        result = {"holds": holds, "claim": record.claim, "checks": listed}
        show_json(result | {"unseen": unseen(record)})
    else:
        for check in checks:
            word = "holds" if check.holds else "FAILS"
            show(f"{word} - {plain(check.statement)}")
        for assumption in unseen(record):
            show(f"no record can show - {assumption}")
        broken = "The claim does not follow from the record."
        show(plain(record.claim) if holds or not record.valid else broken)
    if not holds:
        raise Exit(Code.UNPROVEN)


def report_command(
    records: Annotated[
        list[str],
        Argument(
            metavar="CERTIFICATE|STORE…",
            help="Certificates (.json), and stores: files or database URLs.",
        ),
    ],
    as_json: options.Json = False,
    html: Annotated[
        Path | None, Option(help="Write a page with pictures, too.")
    ] = None,
    markdown: Annotated[
        Path | None, Option(help="Write the report as Markdown, too.")
    ] = None,
    force: options.Force = False,
) -> None:
    """What jobs cost and saved, by their certificates; what stores keep of others."""
    paths = [Path(name) for name in records if name.endswith(".json")]
    certificates = [read_certificate(path) for path in paths]
    bought = [_read_store(name) for name in records if not name.endswith(".json")]
    report = _total(certificates)
    if (html or markdown) and not certificates:
        hint = "name a certificate, too: stores tell no savings"
        raise InvalidInputError("CERTIFICATE", "", hint)
    results = {"--html": html, "--markdown": markdown}
    check_results(results, map(Path, records), force=force)
    if html:
        write(html, report.to_html().encode())
    if markdown:
        write(markdown, report.to_markdown().encode())
    if certificates and as_json:
        show_json(report)
    elif certificates:
        Console().print(report)
        for path, record in zip(paths, certificates, strict=True):
            show(f"\n{path}: {plain(record.claim)}")
    for name, jobs in bought:
        _print_store(name.removeprefix("sqlite:///"), jobs, as_json)


def _total(certificates: list[Certificate]) -> Report:
    """Return one report of several jobs."""
    spend: dict[str, Spend] = {}
    served: Counter[str] = Counter()
    for record in certificates:
        served.update(record.served)
        for model, part in record.spend.items():
            spend[model] = spend.get(model, Spend()) + part
    return Report(spend=spend, served=served, certificates=tuple(certificates))


def _read_store(name: str) -> tuple[str, dict[str, dict[str, Spend]]]:
    if "://" not in name and not Path(name).is_file():
        raise InvalidInputError("STORE", name, "there is no such file")
    return read_bought(name)


def _print_store(name: str, jobs: dict[str, dict[str, Spend]], as_json: bool) -> None:
    """Print what a store holds: job → model → spend."""
    if as_json:
        dumped = {
            job: {model: spend.model_dump() for model, spend in models.items()}
            for job, models in jobs.items()
        }
        show_json({"store": name, "jobs": dumped})
        return
    show(f"\n{name}: answers of {len(jobs)} job{'' if len(jobs) == 1 else 's'}")
    for job, models in jobs.items():
        parts = (f"{name} {s.calls:,} ({dollars(s)})" for name, s in models.items())
        show(f"  {job[:12]}  {', '.join(parts)}")
