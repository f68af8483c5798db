"""A job as the command line tells it: rows, a prompt, models, and what is promised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smart_engine.cli.commands import dollars, say
from smart_engine.cli.prices import HOW, read_prices
from smart_engine.cli.prompts import fill, read_text
from smart_engine.cli.tables import Table, read_table
from smart_engine.equivalence.shorthand import read_rule
from smart_engine.errors import InvalidInputError, MissingExtraError
from smart_engine.serving.members import UnpricedError

if TYPE_CHECKING:
    from langchain_core.language_models import LanguageModelInput

    from langchain_smart.chat_model import SmartChatModel

__all__ = [
    "BaseUrlOption",
    "CandidateOption",
    "ConcurrencyOption",
    "EstimateUsageOption",
    "InArgument",
    "Job",
    "MaxTokensOption",
    "PriceOption",
    "ProgressOption",
    "PromptOption",
    "ReferenceOption",
    "StoreOption",
    "SystemOption",
    "TemperatureOption",
]

InArgument = Annotated[
    Path, typer.Argument(metavar="IN", help="Rows, .csv, .tsv or .jsonl, in UTF-8.")
]
ReferenceOption = Annotated[
    str,
    typer.Option(help="Model whose answers define 'right', such as openai:gpt-5."),
]
CandidateOption = Annotated[
    list[str], typer.Option(help="Cheaper model; repeat for more.")
]
PromptOption = Annotated[
    str, typer.Option(help="What is asked, with {column} for a row's value; or @FILE.")
]
SystemOption = Annotated[
    str | None, typer.Option(help="System message before each prompt; or @FILE.")
]
PriceOption = Annotated[
    list[str] | None,
    typer.Option(help=f"{HOW}; list prices are known (extra `prices`)."),
]
MaxTokensOption = Annotated[
    int | None, typer.Option(min=1, help="Most tokens of an answer.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(help="Temperature of all models.")
]
BaseUrlOption = Annotated[
    str | None, typer.Option(help="Where all models are served, if elsewhere.")
]
ConcurrencyOption = Annotated[
    int, typer.Option(min=1, help="Most calls in flight at once.")
]
EstimateUsageOption = Annotated[
    bool,
    typer.Option(
        "--estimate-usage",
        help="Estimate what a reply cost that reports no usage; else its call fails.",
    ),
]
ProgressOption = Annotated[
    bool | None,
    typer.Option(
        "--progress/--no-progress", help="Show a bar; by default on a terminal."
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(help="Where answers are kept; a file beside IN by default."),
]


@dataclass(frozen=True)
class Job:
    """What is asked of whom, checked before anything is spent.

    Attributes:
        table: The rows.
        asked: Per row, what is sent.
        smart: The model that is asked.
    """

    table: Table
    asked: Sequence[LanguageModelInput]
    smart: SmartChatModel

    @classmethod
    def read(
        cls,
        source: Path,
        *,
        prompt: str,
        system: str | None,
        reference: str,
        candidate: Sequence[str],
        base_url: str | None,
        equivalence: str,
        price: Sequence[str] | None,
        store: str | None,
        **settings: Any,
    ) -> Job:
        """Read a job.

        Args:
            source: The file with the rows.
            prompt: What is asked.
            system: What is said before.
            reference: The reference.
            candidate: The candidates.
            base_url: Where they are served.
            equivalence: When two answers mean the same.
            price: Prices.
            store: Where answers are kept.
            **settings: Further settings of a `SmartChatModel`.

        Raises:
            InvalidInputError: If any of it cannot be used.
            MissingExtraError: If LangChain or the database is not installed.
        """
        table = read_table(source)
        said = [] if system is None else [("system", read_text("system", system))]
        prompts = fill(read_text("prompt", prompt), table)
        rule, prices = read_rule(equivalence), read_prices(price or ())
        try:
            import langchain  # noqa: F401 - makes models of their names
            import sqlalchemy  # noqa: F401 - the store

            from langchain_smart.chat_model import SmartChatModel
            from langchain_smart.members import load_model
        except ModuleNotFoundError as error:
            raise MissingExtraError("run", "a command that asks models") from error
        elsewhere = {} if base_url is None else {"base_url": base_url}
        place = store or f"{source}.answers.db"
        try:
            smart = SmartChatModel(
                reference=load_model("reference", reference, **elsewhere),
                candidates=[
                    load_model("candidate", name, **elsewhere) for name in candidate
                ],
                equivalence=rule,
                prices=prices,
                store=place,
                task=source.stem,
                **settings,
            )
        except UnpricedError as error:
            hint = f"no price is known: add --price {HOW}"
            raise InvalidInputError("price", error.value, hint) from error
        return cls(table, [[*said, ("human", text)] for text in prompts], smart)

    @property
    def kept(self) -> str:
        """Where answers are kept."""
        return str(self.smart.store).removeprefix("sqlite:///")

    @contextmanager
    def kept_for_later(self) -> Iterator[None]:
        """Where the job is cut off, say where its answers are and how it goes on."""
        try:
            yield
        except BaseException:
            say(
                f"answers for {dollars(self.smart.report())} are kept in "
                f"{self.kept}: the same command goes on from there"
            )
            raise
