"""`smart import`: the answers in logs, as a trace for `replay` and `estimate`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from smart_engine.amounts import usd
from smart_engine.cli import options
from smart_engine.cli.job import read_price
from smart_engine.cli.terminal import check_results, show, show_json, write
from smart_engine.errors import InvalidInputError, MissingExtraError
from smart_engine.money.price_list import UnlistedError, listed_price
from smart_engine.money.pricing import Price, Usage
from smart_engine.offline.imports.content import messages_of
from smart_engine.offline.imports.join import Joined, join
from smart_engine.offline.imports.logged import LoggedCall, Skipped
from smart_engine.offline.imports.reader import FORMATS, read_log
from smart_engine.report.words import plain

__all__ = ["import_command"]

_LETTERS = 4
"""Letters of a token, where its number is estimated from a text."""


def import_command(
    *,
    files: Annotated[
        list[Path], Argument(metavar="FILE…", help="Logs: JSON, JSONL, CSV, or .gz.")
    ],
    out: Annotated[
        Path, Option("--out", "-o", help="Where the trace goes, .jsonl or .jsonl.gz.")
    ],
    format: Annotated[  # noqa: A002 - the option's name
        str | None,
        Option(help=f"One of {', '.join(FORMATS)}; by default, found by the content."),
    ] = None,
    reference: Annotated[
        str | None,
        Option(
            help="Model whose answers define 'right'; by default, the one that costs "
            "most per call."
        ),
    ] = None,
    candidate: Annotated[
        list[str] | None,
        Option(
            help="Cheaper model; repeat for more. By default, all that answered at "
            "least half of the reference's inputs."
        ),
    ] = None,
    price: Annotated[list[str] | None, Option(help=options.PRICE_FORM)] = None,
    project: Annotated[
        str | None, Option(help="Only calls of this project, service or team.")
    ] = None,
    name: Annotated[
        str | None, Option(help="Only calls of this name (of a step, run or span).")
    ] = None,
    estimate_usage: Annotated[
        bool,
        Option(
            "--estimate-usage",
            help="Estimate tokens from the texts where none are logged; else left out.",
        ),
    ] = False,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Answers and usage from logs: Langfuse, LangSmith, OpenTelemetry, LiteLLM, tables.

    Prompts are not kept, only a digest that tells equal ones. Nothing is sent anywhere.
    """
    if not out.name.endswith(".jsonl"):
        raise InvalidInputError("--out", str(out), "end it in .jsonl")
    models = out.with_name(f"{out.name.removesuffix('.jsonl')}.models.json")
    check_results({"--out": out, "models file": models}, files, force=force)
    given = dict(map(read_price, price or ()))
    found = _read(files, format, project, name, estimate=estimate_usage)
    prices, unpriced = _prices(found.calls, given)
    try:
        joined = join(
            found.calls, prices, reference=reference, candidates=candidate or ()
        )
    except InvalidInputError:
        if not as_json:
            _show_calls(found, prices, unpriced)
        raise
    rows = (row.model_dump_json(exclude_none=True) + "\n" for row in joined.rows)
    write(out, "".join(rows).encode())
    about = _about(joined, prices, found)
    write(models, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
    if as_json:
        show_json(about | {"out": str(out), "unpriced": unpriced})
        return
    _show_calls(found, prices, unpriced)
    _show_trace(joined, out)


class _Found(NamedTuple):
    """What the files have: usable calls, and why others are left out (count, place)."""

    calls: list[LoggedCall]
    left_out: dict[str, tuple[int, str]]
    estimated: int


def _read(
    files: Sequence[Path],
    format_name: str | None,
    project: str | None,
    name: str | None,
    *,
    estimate: bool,
) -> _Found:
    calls: list[LoggedCall] = []
    left_out: dict[str, tuple[int, str]] = {}
    estimated = 0
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InvalidInputError("FILE", str(file), str(error.strerror)) from error
        for place, call in read_log(str(file), content, format_name):
            read = _wanted(call, project, name)
            if isinstance(read, LoggedCall) and read.tokens is None:
                if estimate:
                    read = read._replace(tokens=_guess(read))
                    estimated += 1
                else:
                    read = Skipped("no usage is logged (--estimate-usage)")
            if isinstance(read, Skipped):
                count, first = left_out.get(read.reason, (0, f"{file}, {place}"))
                left_out[read.reason] = (count + 1, first)
            else:
                calls.append(read)
    projects = Counter(call.project for call in calls)
    if len(projects) > 1 and project is None:
        listed = ", ".join(f"{one or '(none)'} ({n:,})" for one, n in projects.items())
        hint = f"a job is of one project; the files have {listed}"
        raise InvalidInputError("--project", None, hint)
    return _Found(calls, left_out, estimated)


def _wanted(
    call: LoggedCall | Skipped, project: str | None, name: str | None
) -> LoggedCall | Skipped:
    if isinstance(call, LoggedCall):
        if project is not None and call.project != project:
            return Skipped("of another project")
        if name is not None and call.name != name:
            return Skipped("of another name")
    return call


def _guess(call: LoggedCall) -> tuple[int, int]:
    """Return estimated tokens, rounded up."""
    asked = json.dumps(messages_of(call.asked), ensure_ascii=False, default=str)
    return -(-len(asked) // _LETTERS), -(-len(call.answer) // _LETTERS)


def _prices(
    calls: Iterable[LoggedCall], given: dict[str, Price]
) -> tuple[dict[str, Price], list[str]]:
    """Return the price of each model that has one, and the names of all others.

    A list price needs a provider: the same model may cost more or less elsewhere.
    """
    providers: dict[str, str] = {}
    for call in calls:
        providers[call.model] = call.provider or providers.get(call.model, "")
    prices, unpriced = {}, []
    for model, provider in providers.items():
        if model in given:
            prices[model] = given[model]
            continue
        try:
            prices[model] = listed_price(model.removeprefix(f"{provider}/"), provider)
        except (UnlistedError, MissingExtraError):
            unpriced.append(model)
    if providers and (unknown := given.keys() - providers.keys()):
        hint = f"no usable call of this model; there are: {', '.join(providers)}"
        raise InvalidInputError("price", min(unknown), hint)
    return prices, unpriced


def _about(
    joined: Joined, prices: dict[str, Price], found: _Found
) -> dict[str, object]:
    """Return the content of the models file."""
    return {
        "task": "imported from logs; inputs are digests",
        "items": len(joined.rows),
        "reference": joined.reference,
        "candidates": joined.candidates,
        "prices_usd_per_million_tokens": {
            name: {"input": price.input, "output": price.output}
            for name, price in prices.items()
        },
        "calls": len(found.calls),
        "estimated_usage": found.estimated,
        "left_out": {reason: count for reason, (count, _) in found.left_out.items()},
    }


def _show_calls(found: _Found, prices: dict[str, Price], unpriced: list[str]) -> None:
    """Print what was read: calls by model, and what was left out."""
    table = Table(title=f"{len(found.calls):,} calls", title_justify="left")
    table.add_column("model")
    for heading in ("calls", "tokens in", "tokens out", "USD"):
        table.add_column(heading, justify="right")
    counts = Counter(call.model for call in found.calls)
    for model, count in counts.most_common():
        tokens = [c.tokens or (0, 0) for c in found.calls if c.model == model]
        sums = [sum(side) for side in zip(*tokens, strict=True)]
        cost = usd(prices[model].cost(Usage(*sums))) if model in prices else "no price"
        table.add_row(Text(plain(model)), f"{count:,}", *(f"{n:,}" for n in sums), cost)
    Console().print(table)
    if found.estimated:
        show(f"of {found.estimated:,} calls, the tokens are estimated from the texts")
    for reason, (count, first) in found.left_out.items():
        show(f"left out: {count:,}, {plain(reason)}; the first: {plain(first)}")
    for model in unpriced:
        show(f"no price, left out: {plain(model)}; add --price {plain(model)}=IN,OUT")


def _show_trace(joined: Joined, out: Path) -> None:
    """Print what the trace has, and what can be done with it."""
    show(f"{out}: {len(joined.rows):,} inputs, reference {plain(joined.reference)}")
    for model, count in joined.shared.items():
        role = "candidate" if model in joined.candidates else "too few, left out"
        show(f"  {plain(model)}: {count:,} of its inputs ({role})")
    if joined.candidates:
        show(f"What would it have cost? smart replay {out} --equivalence normalized")
    else:
        show(f"What would a candidate have to reach? smart estimate {out}")
