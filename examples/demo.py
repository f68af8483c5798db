"""The main job: an LCEL chain over a batch, with every strategy.

Run it with `make demo`. No key is needed: the models are simulated (see tickets.py).
`--live` asks real OpenAI models instead; it needs OPENAI_API_KEY and costs money.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from langchain_core.language_models import BaseChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from rich.console import Console
from rich.table import Table
from tickets import LABELS, tickets

from langchain_smart import Certificate, Label, Price, RecordedChatModel, SmartChatModel
from smart_engine import Trace
from smart_engine.strategies import STRATEGIES
from smart_engine.traces import Row

LIVE = {
    "gpt-5": Price(input=1.25, output=10.0),
    "gpt-5-mini": Price(input=0.25, output=2.0),
    "gpt-5-nano": Price(input=0.05, output=0.40),
}

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", f"Sort the ticket. Answer with one word: {', '.join(LABELS)}."),
        ("human", "{ticket}"),
    ]
)


def main() -> int:
    """Run the chain with every strategy and show what each did."""
    arguments = _arguments()
    console = Console()
    trace = tickets(arguments.items)
    models, prices = _live() if arguments.live else _simulated(trace)
    inputs = [{"ticket": row.input} for row in trace.rows]
    names = list(prices)
    console.print(
        f"\n[bold]{len(inputs):,} tickets[/] · reference [bold]{names[0]}[/] · "
        f"candidates {', '.join(names[1:])} · at most "
        f"{arguments.max_disagreement:.0%} of the answers may differ from "
        f"{names[0]}'s, with {arguments.confidence:.0%} confidence\n"
    )
    table = Table(
        title="one chain, one strategy after the other; who answered at the right"
    )
    for heading in ("strategy", "cost USD", "saved", "differ", "seconds"):
        table.add_column(heading, justify="left" if heading == "strategy" else "right")
    for name in names:
        table.add_column(name, justify="right")
    certificate: Certificate | None = None
    for strategy in STRATEGIES:
        smart = SmartChatModel(
            reference=models[0],
            candidates=models[1:],
            prices=prices,
            equivalence=Label(list(LABELS)),
            max_disagreement=arguments.max_disagreement,
            confidence=arguments.confidence,
            strategy=strategy,
            max_concurrency=arguments.max_concurrency,
        )
        chain = PROMPT | smart | StrOutputParser()
        started = time.perf_counter()
        answers = chain.batch(inputs)
        seconds = time.perf_counter() - started
        certificate = smart.report().certificates[0]
        table.add_row(
            strategy,
            f"{certificate.cost:.4f}",
            f"{_saved(certificate):.0%}",
            "?" if arguments.live else _differing(answers, trace.rows),
            f"{seconds:.1f}",
            *(f"{certificate.served[name]:,}" for name in names),
        )
    console.print(table)
    if certificate:
        _explain(console, certificate)
    return 0


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=3000)
    parser.add_argument("--max-disagreement", type=float, default=0.05)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--max-concurrency", type=int, default=32)
    parser.add_argument("--live", action="store_true", help="ask real OpenAI models")
    return parser.parse_args()


def _simulated(trace: Trace) -> tuple[list[BaseChatModel], dict[str, Price]]:
    """Return the three simulated models, reference first, and their prices."""
    names = (trace.reference, *trace.candidates)
    models: list[BaseChatModel] = [
        RecordedChatModel(trace=trace, model=name) for name in names
    ]
    return models, trace.prices


def _live() -> tuple[list[BaseChatModel], dict[str, Price]]:
    """Return real models, reference first, and their list prices."""
    if not os.environ.get("OPENAI_API_KEY"):
        sys.exit("--live needs OPENAI_API_KEY in the environment")
    from langchain_openai import ChatOpenAI

    return [ChatOpenAI(model=name) for name in LIVE], dict(LIVE)


def _saved(certificate: Certificate) -> float:
    """Return the share of the reference's cost that was saved."""
    if not certificate.reference_only_cost:
        return 0.0
    return max(0.0, 1 - certificate.cost / certificate.reference_only_cost)


def _differing(answers: list[str], rows: Sequence[Row]) -> str:
    """Return the share of answers that differ from the reference's."""
    right = [row.answers["big"] for row in rows]
    wrong = sum(given != truth for given, truth in zip(answers, right, strict=True))
    return f"{wrong / len(right):.1%}"


def _explain(console: Console, certificate: Certificate) -> None:
    """Show what the last strategy's certificate says."""
    console.print(f"\n[bold]Certificate {certificate.id}[/] ({certificate.strategy})")
    console.print(certificate.claim)
    for seen in certificate.evidence:
        console.print(
            f"  {seen.model}: {seen.errors} of {seen.draws} drawn answers differed, "
            f"{seen.mean_cost:.6f} USD an item: {seen.verdict}"
        )
    for test in certificate.tests:
        ending = f"accepted after {test.accepted}" if test.accepted else "not accepted"
        console.print(
            f"  audit of {test.policy} on {test.items:,} items, level "
            f"{test.level:.4f}: {len(test.errors)} errors in {test.draws} draws, "
            f"{ending}"
        )
    console.print(
        f"  {certificate.profiled:,} items were profiled; the reference alone would "
        f"have cost about {certificate.reference_only_cost:.4f} USD, "
        f"all models together cost {certificate.cost:.4f} USD.\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
