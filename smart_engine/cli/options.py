"""The options that commands share, each stated once.

Options that go together are a dataclass; a command takes one as a single parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from smart_engine.equivalence.shorthand import SHORTHANDS
from smart_engine.strategies import STRATEGIES
from smart_engine.strategies.looks import LOOKS

__all__ = [
    "PRICE_FORM",
    "CallOptions",
    "ConfidenceOption",
    "EquivalenceOption",
    "GuaranteeOptions",
    "InputOptions",
    "JsonOption",
    "ReplayOptions",
    "SeedOption",
    "ShareOption",
    "StoreOption",
    "TrialOptions",
    "TrialsOption",
]

PRICE_FORM = "MODEL=INPUT,OUTPUT in USD per million tokens, or MODEL=free"


def _among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what a shell completes a value with."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


EquivalenceOption = Annotated[
    str,
    typer.Option(
        help=f"When two answers mean the same: {'; '.join(SHORTHANDS.values())}.",
        autocompletion=_among(SHORTHANDS),
    ),
]
ShareOption = Annotated[
    float, typer.Option(help="Tolerated share of differing answers.")
]
ConfidenceOption = Annotated[
    float, typer.Option(help="Probability with which that holds.")
]
TrialsOption = Annotated[int, typer.Option(help="Runs per strategy.")]
SeedOption = Annotated[int, typer.Option(help="Seed of all randomness.")]
StoreOption = Annotated[
    str | None,
    typer.Option(help="Where answers are kept; a file beside IN by default."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object a line.")
]


@dataclass(frozen=True)
class ReplayOptions:
    """Which models and strategies are compared; all of them by default."""

    reference: Annotated[
        str | None, typer.Option(help="Model whose answers define 'right'.")
    ] = None
    candidate: Annotated[
        list[str] | None, typer.Option(help="Cheaper model; repeat for more.")
    ] = None
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help=f"One of {', '.join(STRATEGIES)}; repeat for more. Default: all.",
            autocompletion=_among(STRATEGIES),
        ),
    ] = None
    looks: Annotated[
        str,
        typer.Option(
            help=f"How repeated looks are treated: {' or '.join(sorted(LOOKS))}.",
            autocompletion=_among(sorted(LOOKS)),
        ),
    ] = "corrected"


@dataclass(frozen=True)
class TrialOptions:
    """The guarantees, how often each strategy runs, and where results go."""

    max_disagreement: Annotated[
        list[float] | None,
        typer.Option(
            help="Tolerated share of differing answers; repeat for more. Default: 0.05."
        ),
    ] = None
    confidence: ConfidenceOption = 0.95
    trials: TrialsOption = 20
    seed: SeedOption = 0
    as_json: JsonOption = False
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the costs, too: a file that ends in .svg, .png or .pdf."
        ),
    ] = None


@dataclass(frozen=True)
class InputOptions:
    """What is asked, and of which models."""

    source: Annotated[
        Path, typer.Argument(metavar="IN", help="Rows, .csv, .tsv or .jsonl, in UTF-8.")
    ]
    reference: Annotated[
        str,
        typer.Option(help="Model whose answers define 'right', such as openai:gpt-5."),
    ]
    candidate: Annotated[
        list[str], typer.Option(help="Cheaper model; repeat for more.")
    ]
    prompt: Annotated[
        str,
        typer.Option(help="What is asked, with {column} for a row's value; or @FILE."),
    ]
    system: Annotated[
        str | None, typer.Option(help="System message before each prompt; or @FILE.")
    ] = None


@dataclass(frozen=True)
class GuaranteeOptions:
    """What is promised, how it is kept, and at which prices."""

    equivalence: EquivalenceOption = "normalized"
    max_disagreement: ShareOption = 0.05
    confidence: ConfidenceOption = 0.95
    strategy: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(STRATEGIES)}.", autocompletion=_among(STRATEGIES)
        ),
    ] = "audit"
    price: Annotated[
        list[str] | None,
        typer.Option(help=f"{PRICE_FORM}; list prices are known (extra `prices`)."),
    ] = None


@dataclass(frozen=True)
class CallOptions:
    """How models are called."""

    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of an answer.")
    ] = None
    temperature: Annotated[
        float | None, typer.Option(help="Temperature of all models.")
    ] = None
    base_url: Annotated[
        str | None, typer.Option(help="Where all models are served, if elsewhere.")
    ] = None
    estimate_usage: Annotated[
        bool,
        typer.Option(
            "--estimate-usage",
            help=(
                "Estimate what a reply cost that reports no usage; else its call fails."
            ),
        ),
    ] = False
    max_concurrency: Annotated[
        int, typer.Option(min=1, help="Most calls in flight at once.")
    ] = 32
    seed: SeedOption = 0
