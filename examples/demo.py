"""The main job: three tasks, each one batch through one LCEL chain, and one report.

Run it with `make demo`. No key is needed: the answers of three real models are replayed
from `data/`, each after a short delay, as if the models were called now. The random
draws start from seed 1, so every run prints the same figures; `--seed 2` and so on show
how they vary. `--live` calls OpenAI's models instead; it needs OPENAI_API_KEY and costs
money.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from recorded_tasks import DATA, TASKS, Task
from rich.console import Console
from rich.table import Table

from langchain_smart import Certificate, Price, RecordedChatModel, SmartChatModel
from smart_engine import Trace, agree

LIVE = {
    "gpt-5": Price(input=1.25, output=10.0),
    "gpt-5-mini": Price(input=0.25, output=2.0),
    "gpt-5-nano": Price(input=0.05, output=0.40),
}


def main() -> int:
    """Run the three jobs and show their results."""
    arguments = _arguments()
    console = Console(highlight=False)
    console.print(
        f"\n[bold]At most {arguments.max_disagreement:.0%} of a job's answers may "
        f"differ from the reference's, with {arguments.confidence:.0%} confidence.[/] "
        f"Draws start from seed {arguments.seed}.",
        soft_wrap=True,
    )
    books = None
    for task in TASKS.values():
        trace = Trace.read(DATA / f"{task.name}.jsonl.gz")
        models = _live() if arguments.live else _recorded(trace, arguments.latency)
        reference, *candidates = models
        smart = SmartChatModel(
            reference=models[reference],
            candidates=[models[name] for name in candidates],
            prices=LIVE if arguments.live else trace.prices,
            equivalence=task.equivalence,
            max_disagreement=arguments.max_disagreement,
            confidence=arguments.confidence,
            task=task.name,
            max_concurrency=arguments.max_concurrency,
            seed=arguments.seed,
            progress=True,
            books=books,  # one report for all three
        )
        books = smart.books
        chain = task.prompt | smart | StrOutputParser()
        started = time.perf_counter()
        answers = chain.batch([{"text": row.input} for row in trace.rows])
        seconds = time.perf_counter() - started
        certificate = smart.report().certificates[-1]
        differ = None if arguments.live else _differing(task, trace, answers)
        _show(console, certificate, differ, seconds)
    report = smart.report()
    report.to_html(arguments.page)
    saved = report.saved / (report.cost + report.saved)
    console.print(
        f"\n[bold]Three jobs: {report.cost:.4f} USD, {saved:.0%} saved (estimated).[/] "
        f"The report, with pictures and proof: {arguments.page}",
        soft_wrap=True,
    )
    return 0


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-disagreement", type=float, default=0.1)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=1, help="start of all draws")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds an answer")
    parser.add_argument("--max-concurrency", type=int, default=32)
    parser.add_argument("--page", type=Path, default=Path("report.html"))
    parser.add_argument("--live", action="store_true", help="call real OpenAI models")
    return parser.parse_args()


def _recorded(trace: Trace, latency: float) -> Mapping[str, BaseChatModel]:
    """Return the recorded models by name, the reference first."""
    names = (trace.reference, *trace.candidates)
    return {
        name: RecordedChatModel(trace=trace, model=name, latency=latency)
        for name in names
    }


def _live() -> Mapping[str, BaseChatModel]:
    """Return OpenAI's models by name, the reference first."""
    if not os.environ.get("OPENAI_API_KEY"):
        sys.exit("--live needs OPENAI_API_KEY in the environment")
    from langchain_openai import ChatOpenAI

    return {name: ChatOpenAI(model=name) for name in LIVE}


def _differing(task: Task, trace: Trace, answers: list[str]) -> int:
    """Return how many answers differ from the reference's."""
    right = [row.answers[trace.reference] for row in trace.rows]
    pairs = zip(answers, right, strict=True)
    return sum(not agree(task.equivalence, given, truth) for given, truth in pairs)


def _show(
    console: Console, certificate: Certificate, differ: int | None, seconds: float
) -> None:
    """Show what one job cost and saved, which model answered, and the guarantee."""
    table = Table(
        title=f"{certificate.items:,} {certificate.task} in {seconds:.1f} s",
        title_justify="left",
    )
    table.add_column("model")
    for heading in ("answered", "asked", "cost USD"):
        table.add_column(heading, justify="right")
    for name, spend in certificate.spend.items():
        table.add_row(
            name,
            f"{certificate.served[name]:,}",
            f"{spend.calls:,}",
            f"{spend.cost:.6f}",
        )
    console.print()
    console.print(table)
    alone = certificate.reference_only_cost
    if alone is not None:
        console.print(
            f"cost {certificate.cost:.6f} USD, {certificate.reference} alone about "
            f"{alone:.6f} USD: [bold]{1 - certificate.cost / alone:.0%} saved[/]"
        )
    if differ is not None:
        console.print(
            f"{differ} answers really differ from the reference's, where "
            f"{certificate.max_errors} may"
        )
    console.print(f"certificate {certificate.id}: {certificate.claim}", soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
