"""The main job: 5,250 items in one batch through one LCEL chain, and what it saved.

Run it with `make demo`. No key is needed: the answers of real models are replayed. The
first job has a frontier model as its reference and three cheap ones, at list prices,
under two guarantees; then come three small jobs of local models, from `data/`. The
random draws start from seed 1, so every run prints the same figures; `--seed 2` and so
on show how they vary. `--live` calls OpenAI's models on the three small jobs instead;
it needs OPENAI_API_KEY and costs money.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from recorded_tasks import DATA, TASKS, Task
from rich.console import Console
from rich.table import Table

from langchain_smart import Certificate, Label, Price, RecordedChatModel, SmartChatModel
from smart_engine import Report, Trace, agree
from smart_engine.amounts import usd
from smart_engine.cli.demo import show_savings
from smart_engine.offline.replay import accuracy, savings

LIVE = {
    "gpt-5": Price(input=1.25, output=10.0),
    "gpt-5-mini": Price(input=0.25, output=2.0),
    "gpt-5-nano": Price(input=0.05, output=0.40),
}
TOXICITY = Task(
    "toxicity",
    ChatPromptTemplate.from_template("Is this comment toxic? 1 or 0.\n\n{text}"),
    Label(["0", "1"]),
    max_tokens=1,
)
SHARES = (0.05, 0.10)
SIZES = (250, 1000, 5250)
_NONE = "–"


def main() -> int:
    """Run the jobs and show their results."""
    arguments = _arguments()
    console = Console(highlight=False)
    jobs = Jobs(arguments)
    if not arguments.live:
        trace = Trace.example()
        with ProcessPoolExecutor(1) as pool:  # works while the chain does
            curve = pool.submit(savings, trace, SIZES, (0.02, *SHARES, 0.20))
            _say_what(console, trace)
            for share in SHARES:
                _show(console, jobs.run(TOXICITY, trace, share), trace.reference)
            console.print()
            show_savings(curve.result())
    small = arguments.max_disagreement
    console.print(f"\n[bold]Three small jobs; at most {small:.0%} may differ.[/]")
    done = [
        jobs.run(task, Trace.read(DATA / f"{task.name}.jsonl.gz"), small)
        for task in TASKS.values()
    ]
    _show_small(console, done)
    report = jobs.report()
    report.to_html(arguments.page)
    saved = report.saved / (report.cost + report.saved)
    console.print(
        f"\n[bold]All jobs: {usd(report.cost)} USD, {saved:.0%} saved (estimated).[/] "
        f"The report, with pictures and proof: {arguments.page}",
        soft_wrap=True,
    )
    return 0


@dataclass(frozen=True)
class Done:
    """A job that is done.

    Attributes:
        certificate: Its certificate.
        seconds: How long it took.
        differ: How many answers really differ from the reference's, if it is known.
        alone: Share of the reference's answers that are true, if it is known.
        served: Share of the answers handed out that are true, if it is known.
    """

    certificate: Certificate
    seconds: float
    differ: int | None
    alone: float | None
    served: float | None


class Jobs:
    """Runs jobs one after another, with one report for all."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._smart: list[SmartChatModel] = []

    def report(self) -> Report:
        """Return the report of all jobs so far."""
        return self._smart[-1].report()

    def run(self, task: Task, trace: Trace, share: float) -> Done:
        """Answer all items of a task in one batch."""
        arguments = self._arguments
        models = _live() if arguments.live else _recorded(trace, task, arguments)
        reference, *candidates = models
        smart = SmartChatModel(
            reference=models[reference],
            candidates=[models[name] for name in candidates],
            prices=LIVE if arguments.live else trace.prices,
            equivalence=task.equivalence,
            max_disagreement=share,
            confidence=arguments.confidence,
            task=f"{task.name}, {share:.0%}" if task is TOXICITY else task.name,
            max_concurrency=arguments.max_concurrency,
            seed=arguments.seed,
            progress=True,
            books=self._smart[-1].books if self._smart else None,
        )
        self._smart.append(smart)
        chain = task.prompt | smart | StrOutputParser()
        started = time.perf_counter()
        answers = chain.batch(
            [{"text": row.input or row.item_id} for row in trace.rows]
        )
        seconds = time.perf_counter() - started
        certificate = smart.report().certificates[-1]
        if arguments.live:
            return Done(certificate, seconds, None, None, None)
        rule, gold = task.equivalence, trace.gold(0)
        right = [row.answers[trace.reference] for row in trace.rows]
        pairs = zip(answers, right, strict=True)
        differ = sum(not agree(rule, given, truth) for given, truth in pairs)
        alone, served = (accuracy(each, gold, rule) for each in (right, answers))
        return Done(certificate, seconds, differ, alone, served)


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-disagreement", type=float, default=0.1)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=1, help="start of all draws")
    parser.add_argument("--latency", type=float, default=0.02, help="seconds an answer")
    parser.add_argument("--max-concurrency", type=int, default=32)
    parser.add_argument("--page", type=Path, default=Path("report.html"))
    parser.add_argument("--live", action="store_true", help="call real OpenAI models")
    return parser.parse_args()


def _recorded(
    trace: Trace, task: Task, arguments: argparse.Namespace
) -> Mapping[str, BaseChatModel]:
    """Return the recorded models by name, the reference first."""
    latency = 0.0 if task is TOXICITY else arguments.latency
    return {
        name: RecordedChatModel(trace=trace, model=name, latency=latency)
        for name in (trace.reference, *trace.candidates)
    }


def _live() -> Mapping[str, BaseChatModel]:
    """Return OpenAI's models by name, the reference first."""
    if not os.environ.get("OPENAI_API_KEY"):
        sys.exit("--live needs OPENAI_API_KEY in the environment")
    from langchain_openai import ChatOpenAI

    return {name: ChatOpenAI(model=name) for name in LIVE}


def _say_what(console: Console, trace: Trace) -> None:
    """Say what the first job is."""
    console.print(
        f"\n[bold]{len(trace.rows):,} comments in 7 languages: toxic or not?[/] "
        f"{trace.reference} answers, or {', '.join(trace.candidates)} where that is "
        "safe. Their recorded answers, at list prices.",
        soft_wrap=True,
    )


def _show(console: Console, done: Done, reference: str) -> None:
    """Show what a job cost and saved, which model answered, and at what risk."""
    certificate = done.certificate
    table = Table(
        title=f"{certificate.task} may differ; {done.seconds:.1f} s",
        title_justify="left",
    )
    table.add_column("model")
    for heading in ("answered", "asked", "cost USD"):
        table.add_column(heading, justify="right")
    for name, spend in certificate.spend.items():
        answered = f"{certificate.served[name]:,}"
        table.add_row(name, answered, f"{spend.calls:,}", usd(spend.cost))
    console.print()
    console.print(table)
    differ = done.differ or 0
    alone, kept = certificate.reference_only_cost or 0.0, certificate.max_errors
    lines = f"""\
cost [bold]{usd(certificate.cost)} USD[/]; {reference} alone about {usd(alone)} USD: \
[bold]{_saved(certificate)} saved[/]
{differ:,} answers ({differ / certificate.items:.1%}) really differ from the \
reference's, where {kept:,} may
by the true labels, {reference} alone is right on {_share(done.alone)}, these answers \
on [bold]{_share(done.served)}[/]
certificate {certificate.id}: {certificate.claim}"""
    console.print(lines, soft_wrap=True)


def _show_small(console: Console, jobs: Sequence[Done]) -> None:
    """Show what the small jobs cost and saved, a line each."""
    table = Table()
    table.add_column("job")
    headings = "items|cost USD|saved|differ|may|reference right|answers right"
    for heading in headings.split("|"):
        table.add_column(heading, justify="right")
    for done in jobs:
        record = done.certificate
        table.add_row(
            record.task,
            *(f"{record.items:,}", usd(record.cost), _saved(record)),
            *(_NONE if done.differ is None else f"{done.differ:,}",),
            *(f"{record.max_errors:,}", _share(done.alone), _share(done.served)),
        )
    console.print(table)


def _saved(certificate: Certificate) -> str:
    """Return the share of the reference's cost that was saved."""
    alone = certificate.reference_only_cost
    return f"{1 - certificate.cost / alone:.0%}" if alone else _NONE


def _share(share: float | None) -> str:
    return _NONE if share is None else f"{share:.1%}"


if __name__ == "__main__":
    raise SystemExit(main())
