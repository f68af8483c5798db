"""Structured extraction: objects of a class, compared field by field.

    python examples/structured_extraction.py

`with_structured_output` keeps the whole batch in one session. A rule for each field
defines when two objects are the same; unimportant fields are ignored.

No key is needed; `--live` calls OpenAI instead (OPENAI_API_KEY, costs money).
"""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from typing import Any

from langchain_core.prompts import ChatPromptTemplate
from offline import PRICES, command_line, openai
from pydantic import BaseModel, Field

from langchain_smart import Date, Json, Normalized, Number, SmartChatModel

PROMPT = ChatPromptTemplate.from_template("Read the order.\n\n{mail}")


class Order(BaseModel):
    """An order, as a customer wrote it."""

    customer: str
    euros: float = Field(description="What the customer pays in all.")
    due: dt.date
    summary: str = Field(description="The order in a few words.")


SAME = Json(
    fields={"customer": Normalized(), "euros": Number(absolute=0.01), "due": Date()},
    ignore=["summary"],
)


def main() -> int:
    """Read the orders; show the cost and the guarantee."""
    arguments = command_line(__doc__, items=300).parse_args()
    with openai(live=arguments.live, otherwise=read):
        smart = SmartChatModel(
            reference="openai:gpt-5",
            candidates=["openai:gpt-5-mini", "openai:gpt-5-nano"],
            prices=PRICES,
            equivalence=SAME,
            max_disagreement=0.05,
            confidence=0.95,
            task="orders",
            promise="batch",  # one job alone
        )
        chain = PROMPT | smart.with_structured_output(Order)
        orders = chain.batch([{"mail": mail} for mail in mails(arguments.items)])
    for order in orders[:3]:
        print(repr(order))
    report = smart.report()
    print(f"\n{report}\n\n{report.certificates[0].claim}")
    return 0


NAMES = ("Ines Falk", "Mr Arden", "Bea Okeke", "Dr Lindt", "Jo & Sons", "Ada Brandt")
THINGS = ("lamp", "chair", "desk", "shelf", "mirror", "clock")


def mails(count: int, seed: int = 0) -> list[str]:
    """Return `count` made-up orders."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret is made here
    return [
        f"Dear all,\nplease send me {rng.randint(2, 9)} times the {rng.choice(THINGS)} "
        f"for {rng.randint(1000, 99999) / 100:.2f} euros in all, before "
        f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.2027.\nYours, {rng.choice(NAMES)}"
        for _ in range(count)
    ]


def read(messages: list[dict[str, Any]], slips: bool) -> str:
    """Read an order as a model does; a slip gets the date wrong."""
    mail = messages[-1]["content"]
    what, euros, day, month, year, who = re.findall(
        r"me (.+) for ([\d.]+) euros in all, before (\d+)\.(\d+)\.(\d+)\.\nYours, (.+)",
        mail,
    )[0]
    if slips:
        day, month = (month, day) if int(day) <= 12 else ("1", month)
    due = f"{year}-{int(month):02}-{int(day):02}"
    order = {"customer": who, "euros": float(euros), "due": due, "summary": what}
    return json.dumps(order)


if __name__ == "__main__":
    raise SystemExit(main())
