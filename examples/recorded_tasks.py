"""The three tasks of the recorded data: their inputs, prompts and equivalences.

`record_answers.py` calls real models with these prompts, and `demo.py` replays their
answers behind the same prompts. Only the last message varies, so a server can cache the
rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from langchain_core.prompts import ChatPromptTemplate

from langchain_smart import Json, Label, Normalized, Number
from smart_engine import Equivalence

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: Name of its files in `data/`.
        prompt: The prompt about a `{text}`.
        equivalence: When two answers are the same.
        max_tokens: Longest answer.
    """

    name: str
    prompt: ChatPromptTemplate
    equivalence: Equivalence
    max_tokens: int

    def inputs(self) -> list[tuple[str | None, str]]:
        """Return (the writer's label where there is one, text), line by line."""
        lines = (DATA / f"{self.name}.txt").read_text(encoding="utf-8").splitlines()
        given = [line.rpartition("\t") for line in lines]
        return [(gold or None, text) for gold, _, text in given]


def _prompt(instruction: str, shots: Sequence[tuple[str, str]]) -> ChatPromptTemplate:
    """Return a prompt of an instruction, solved examples and a text."""
    solved = [
        (role, text)
        for shot in shots
        for role, text in zip(("human", "ai"), shot, strict=True)
    ]
    return ChatPromptTemplate([("system", instruction), *solved, ("human", "{text}")])


TICKETS = Task(
    "tickets",
    _prompt(
        "Sort the customer's ticket into one of these classes: "
        "billing (invoices, charges, prices, vouchers, payment), "
        "delivery (shipping, tracking, couriers, missing parcels), "
        "returns (sending things back, refunds of returned goods, exchange, warranty), "
        "account (login, password, profile, members, privacy), "
        "technical (errors, crashes, devices or software that do not work). "
        "Answer with the class alone, in one word.",
        [
            ("Why is there a second charge of 12 on my March invoice?", "billing"),
            ("The courier has lost my parcel, where is it?", "delivery"),
            ("This lamp is too big, I want to send it back.", "returns"),
            ("My password is not accepted any more.", "account"),
            ("The app freezes when I open a picture.", "technical"),
            ("The battery of my radio is flat after an hour.", "technical"),
            ("Please bring my order to the back door.", "delivery"),
            ("Your shop will not take my voucher.", "billing"),
            ("How do I add a colleague as a user?", "account"),
            ("I sent the hat back and wait for my refund.", "returns"),
            ("Is the yearly plan cheaper than the monthly one?", "billing"),
            ("The zip broke on the first day, I want a new coat.", "returns"),
            ("The router reboots every hour.", "technical"),
            ("One of the two books was not in the box.", "delivery"),
            ("What data do you keep about me?", "account"),
        ],
    ),
    Label(["billing", "delivery", "returns", "account", "technical"]),
    max_tokens=6,
)
REVIEWS = Task(
    "reviews",
    _prompt(
        "Sort the review: would its writer rather recommend it (positive) or not "
        "(negative)? Answer with one word, positive or negative.",
        [
            ("Best soup I ever had, we will be back!", "positive"),
            ("Stopped working on the second day.", "negative"),
            ("A rude waiter and a dirty table.", "negative"),
            ("I did not expect much, and was delighted.", "positive"),
            ("Thanks for nothing, this app ate my photos.", "negative"),
            ("Some scenes drag, but I would watch it again.", "positive"),
            ("Not a single complaint after three years.", "positive"),
            ("Pretty, but it never really worked.", "negative"),
        ],
    ),
    Label(["positive", "negative"]),
    max_tokens=6,
)
ORDERS = Task(
    "orders",
    _prompt(
        "Who pays or is paid, and how much in all? Answer with JSON alone: "
        '{{"name": "…", "amount": 0.00}}',
        [
            (
                "Invoice of 3 May 2027 for Ines Falk: 120.50 euros.",
                '{{"name": "Ines Falk", "amount": 120.50}}',
            ),
            (
                "Mr Arden, 14 Mill Lane, owes us $1,300 by November 20th, 2026.",
                '{{"name": "Arden", "amount": 1300.00}}',
            ),
            (
                "On 07.02.2027 we received 45 pounds from Dr Ada Okeke for 2 lamps.",
                '{{"name": "Ada Okeke", "amount": 45.00}}',
            ),
            (
                "Bea sold her boat, 900, 2027-06-30.",
                '{{"name": "Bea", "amount": 900.00}}',
            ),
        ],
    ),
    Json(fields={"name": Normalized(), "amount": Number(absolute=0.005)}),
    max_tokens=40,
)
TASKS = {task.name: task for task in (TICKETS, REVIEWS, ORDERS)}
