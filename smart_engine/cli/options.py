"""The options that commands share, each stated once.

Options that go together are a dataclass; a command takes one as a single parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from smart_engine.equivalence.shorthand import SHORTHANDS
from smart_engine.errors import InvalidInputError
from smart_engine.guarantee import Guarantee
from smart_engine.strategies import LIMITED, STRATEGIES
from smart_engine.strategies.looks import LOOKS
from smart_engine.tiers import MIN_SAVING

__all__ = [
    "PRICE_FORM",
    "SIGNALS",
    "Calls",
    "Compared",
    "Estimated",
    "Inputs",
    "Promise",
    "Trials",
    "share_of",
]

PRICE_FORM = (
    "MODEL=INPUT,OUTPUT in USD per million tokens, or MODEL=INPUT,OUTPUT/INPUT,OUTPUT "
    "with those by batch, or MODEL=free"
)


SIGNALS = {"logprobs": "logprobs", "none": None}
"""What `--signals` may be → the setting."""


def _among(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what a shell completes a value with."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def _strategy(more: str) -> Any:
    return Option(
        help=f"One of {', '.join(STRATEGIES)}{more}.", autocompletion=_among(STRATEGIES)
    )


Equivalence = Annotated[
    str,
    Option(
        help=f"When two answers mean the same: {'; '.join(SHORTHANDS.values())}.",
        autocompletion=_among(SHORTHANDS),
    ),
]
Share = Annotated[float, Option(help="Tolerated share of differing answers.")]
Tolerated = Annotated[
    str,
    Option(
        help="Tolerated share of differing answers; none: only labels are promised."
    ),
]
Recall = Annotated[
    list[str] | None,
    Option(
        help="LABEL=SHARE: of the rows that the reference gives this label, at least "
        "this share gets it; repeat for more."
    ),
]
Precision = Annotated[
    list[str] | None,
    Option(
        help="LABEL=SHARE: of the rows that get this label, at least this share has it "
        "from the reference, too; repeat for more."
    ),
]
Slice = Annotated[
    str | None,
    Option(
        "--slice",
        metavar="COLUMN",
        help="Column whose values, such as tenants or languages, are slices: the "
        "tolerated share holds in each of them.",
    ),
]
Reference = Annotated[str | None, Option(help="Model whose answers define 'right'.")]
Candidates = Annotated[list[str] | None, Option(help="Cheaper model; repeat for more.")]
Confidence = Annotated[float, Option(help="Probability with which that holds.")]
Runs = Annotated[int, Option(help="Runs per strategy.")]
Seed = Annotated[int, Option(help="Seed of all randomness.")]
Draws = Annotated[
    int | None,
    Option(help="Seed of the draws; fresh ones, kept in the store, if left out."),
]
Json = Annotated[bool, Option("--json", help="Print JSON, one object a line.")]
Force = Annotated[bool, Option(help="Write over what is there.")]
Store = Annotated[
    str | None, Option(help="Where answers are kept; a file beside IN by default.")
]


@dataclass(frozen=True)
class Compared:
    """Which models and strategies are compared; all of them by default."""

    reference: Reference = None
    candidate: Candidates = None
    strategy: Annotated[
        list[str] | None, _strategy("; repeat for more. Default: all")
    ] = None
    looks: Annotated[
        str,
        Option(
            help="How exhaustive, efficient and mix treat repeated looks: "
            f"{' or '.join(sorted(LOOKS))}.",
            autocompletion=_among(sorted(LOOKS)),
        ),
    ] = "corrected"


@dataclass(frozen=True)
class Trials:
    """The guarantees, how often each strategy runs, and where results go."""

    max_disagreement: Annotated[
        list[str] | None,
        Option(
            help="Tolerated share of differing answers; repeat for more. Default: "
            "0.05. none: only labels are promised."
        ),
    ] = None
    confidence: Confidence = 0.95
    recall: Recall = None
    precision: Precision = None
    trials: Runs = 20
    seed: Seed = 0
    max_rounds: Annotated[
        int | None,
        Option(
            min=1,
            help=f"Most waves of calls; for {' and '.join(LIMITED)} only.",
        ),
    ] = None
    as_json: Json = False
    plot: Annotated[
        Path | None,
        Option(help="Draw the costs, too: a file that ends in .svg, .png or .pdf."),
    ] = None
    force: Force = False


@dataclass(frozen=True)
class Inputs:
    """What is asked, and of which models."""

    source: Annotated[
        Path, Argument(metavar="IN", help="Rows, .csv, .tsv or .jsonl, in UTF-8.")
    ]
    reference: Annotated[
        str, Option(help="Model whose answers define 'right', such as openai:gpt-5.")
    ]
    candidate: Annotated[list[str], Option(help="Cheaper model; repeat for more.")]
    prompt: Annotated[
        str, Option(help="What is asked, with {column} for a row's value; or @FILE.")
    ]
    system: Annotated[
        str | None, Option(help="System message before each prompt; or @FILE.")
    ] = None


@dataclass(frozen=True)
class Estimated:
    """What is asked, as for `Inputs`; nothing of it for recorded answers."""

    source: Annotated[
        Path,
        Argument(metavar="IN", help="Rows, .csv, .tsv or .jsonl; or a trace, .jsonl."),
    ]
    reference: Reference = None
    candidate: Candidates = None
    prompt: Annotated[
        str | None,
        Option(help="What is asked, with {column} for a row's value; or @FILE."),
    ] = None
    system: Annotated[
        str | None, Option(help="System message before each prompt; or @FILE.")
    ] = None

    def inputs(self) -> Inputs:
        """Return what is asked, checked.

        Raises:
            InvalidInputError: If an option is missing.
        """
        for field in ("reference", "candidate", "prompt"):
            if not getattr(self, field):
                hint = "is needed, unless IN is a trace that smart import wrote"
                raise InvalidInputError(f"--{field}", None, hint)
        return Inputs(
            self.source,
            self.reference or "",
            self.candidate or [],
            self.prompt or "",
            self.system,
        )


@dataclass(frozen=True)
class Promise:
    """What is promised, how it is kept, and at which prices."""

    equivalence: Equivalence = "normalized"
    max_disagreement: Tolerated = "0.05"
    confidence: Confidence = 0.95
    recall: Recall = None
    precision: Precision = None
    slices: Slice = None
    strategy: Annotated[str, _strategy("")] = "audit"
    min_saving: Annotated[
        float,
        Option(
            help="Ask candidates only where they are expected to save at least this "
            "share of the reference's cost."
        ),
    ] = MIN_SAVING
    price: Annotated[
        list[str] | None,
        Option(help=f"{PRICE_FORM}; by default list prices (extra `prices`)."),
    ] = None


@dataclass(frozen=True)
class Calls:
    """How models are called."""

    max_tokens: Annotated[
        int | None, Option(min=1, help="Most tokens of an answer.")
    ] = None
    temperature: Annotated[float | None, Option(help="Temperature of all models.")] = (
        None
    )
    dedupe: Annotated[
        bool | None,
        Option(
            help="Ask once about rows that make the same prompt; by default where "
            "every temperature is set to 0."
        ),
    ] = None
    base_url: Annotated[
        str | None,
        Option(
            help="Address of the server that has all models, such as http://localhost:8000/v1."
        ),
    ] = None
    signals: Annotated[
        str,
        Option(
            help="logprobs: candidates that can are asked for them, at no cost, to "
            "tell how sure they are; none.",
            autocompletion=_among(SIGNALS),
        ),
    ] = "logprobs"
    estimate_usage: Annotated[
        bool,
        Option(
            "--estimate-usage",
            help="Estimate what a reply cost that reports no usage; "
            "else its call fails.",
        ),
    ] = False
    max_concurrency: Annotated[
        int, Option(min=1, help="Most calls in flight at once.")
    ] = 32
    seed: Draws = None


def guarantee_of(max_disagreement: str, given: Trials | Promise) -> Guarantee:
    """Return the guarantee that options state.

    Raises:
        InvalidInputError: If one of them is no share.
    """
    share = None
    if max_disagreement != "none":
        share = share_of("max_disagreement", max_disagreement)
    return Guarantee(
        share,
        given.confidence,
        _by_label("recall", given.recall),
        _by_label("precision", given.precision),
    )


def _by_label(field: str, given: list[str] | None) -> dict[str, float]:
    """Return label → share, from `fraud=0.9`."""
    shares = {}
    for text in given or ():
        label, _, share = text.rpartition("=")
        shares[label] = _number(field, text, share if label else "", "LABEL=SHARE")
    return shares


def share_of(field: str, text: str) -> float:
    """Return a share of answers that may differ.

    Raises:
        InvalidInputError: If a text is no number.
    """
    form = "0.05, or none" if field == "max_disagreement" else "0.05"
    return _number(field, text, text, form)


def _number(field: str, text: str, number: str, form: str) -> float:
    try:
        return float(number)
    except ValueError as error:
        raise InvalidInputError(field, text, f"write {form}") from error
