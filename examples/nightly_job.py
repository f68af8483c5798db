"""A nightly job that is interrupted and continues: nothing is paid for twice.

    python examples/nightly_job.py

With `store=` every answer is stored as it comes. Here the first night's budget ends too
early; in the second night the same job starts again with a larger one. It is the same
after a crash, a kill or a Ctrl-C.

No key is needed; `--live` calls OpenAI instead (OPENAI_API_KEY, costs money). Give it a
`--store` of its own, because answers in the file are not asked for again.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from offline import PRICES, command_line, openai
from recorded_tasks import REVIEWS

from langchain_smart import Label, SmartChatModel

PROMPT = ChatPromptTemplate.from_template(
    "Is this review positive or negative? Answer in one word.\n\n{review}"
)
WRITTEN = {text: kind for kind, text in REVIEWS.inputs()}


def night(reviews: list[str], store: Path, budget: float) -> SmartChatModel:
    """Do the job, or as much of it as the budget allows; return its model."""
    smart = SmartChatModel(
        reference="openai:gpt-5",
        candidates=["openai:gpt-5-mini", "openai:gpt-5-nano"],
        prices=PRICES,
        equivalence=Label(["positive", "negative"]),
        max_disagreement=0.05,
        confidence=0.95,
        task="reviews",
        max_tokens=2000,  # bounds the cost of a call
        budget_usd=budget,
        store=store,
    )
    chain = PROMPT | smart | StrOutputParser()
    inputs = [{"review": text} for text in reviews]
    chain.batch(inputs, return_exceptions=True)  # some items may have no answer
    return smart


def bill(smart: SmartChatModel) -> None:
    """Show a night's calls, those restored from the store, and the guarantee."""
    for outcome, spend in smart.ledger().sums("outcome").items():
        print(f"  {outcome:>9}: {spend.calls:>5,} calls, {spend.cost:.6f} USD")
    print(f"  {smart.report().certificates[0].claim}")


def main() -> int:
    """Do the job in two nights; show both bills."""
    parser = command_line(__doc__, items=315)
    parser.add_argument("--store", type=Path, help="a file that remains")
    parser.add_argument("--budget", type=float, default=0.025, help="USD, first night")
    arguments = parser.parse_args()
    reviews = list(WRITTEN)[: arguments.items]
    with (
        TemporaryDirectory() as folder,
        openai(live=arguments.live, otherwise=read),
    ):
        store = arguments.store or Path(folder, "night.db")
        for name, budget in (("First", arguments.budget), ("Second", 10.0)):
            print(f"{name} night, at most {budget:g} USD")
            bill(night(reviews, store, budget))
    return 0


def read(messages: list[dict[str, Any]], slips: bool) -> str:
    """Judge a review as its writer does; a slip gives the other word."""
    positive = WRITTEN[messages[-1]["content"].rpartition("\n")[2]] == "positive"
    return "positive" if positive != slips else "negative"


if __name__ == "__main__":
    raise SystemExit(main())
