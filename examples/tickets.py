"""Support tickets made up on the spot, and three models that sort them.

Nothing here is recorded from a real model: the texts are put together from phrases,
and each model errs at random at a fixed rate. It stands in for a trace of your own.
"""

from __future__ import annotations

import random

from smart_engine import Price, Trace
from smart_engine.traces import Row

LABELS = {
    "billing": (
        "I was charged twice for my subscription this month",
        "The invoice shows a different amount than my plan",
        "Please refund the payment from last week",
        "My card was declined although it is valid",
    ),
    "delivery": (
        "My parcel has been stuck in transit for nine days",
        "The box arrived open and one item is missing",
        "I need to change the delivery address of my order",
        "The courier says that nobody was at home, but I was",
    ),
    "account": (
        "I cannot log in since I changed my phone",
        "The password reset mail never arrives",
        "Please close my account and delete my data",
        "Someone else seems to be using my account",
    ),
    "product": (
        "The app crashes whenever I open the settings",
        "How do I export my data as a spreadsheet",
        "The lamp flickers after a few minutes of use",
        "Does the new version work with older phones",
    ),
}
OPENINGS = ("Hello,", "Good morning.", "Hi team,", "To whom it may concern:", "Hey!")
CLOSINGS = ("Please help.", "Thanks in advance.", "This is urgent.", "Any idea?", "")

REFERENCE = "big"
PRICES = {
    "big": Price(input=10.0, output=30.0),
    "medium": Price(input=0.50, output=1.50),
    "small": Price(input=0.10, output=0.40),
}
DISAGREEMENT = {"big": 0.0, "medium": 0.02, "small": 0.09}


def tickets(count: int, seed: int = 0) -> Trace:
    """Return `count` tickets with the three models' answers."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret is made here
    rows = []
    for number in range(count):
        label = rng.choice(list(LABELS))
        words = (rng.choice(OPENINGS), rng.choice(LABELS[label]), rng.choice(CLOSINGS))
        text = f"Ticket {number:05d}. {words[0]} {words[1]}. {words[2]}".strip()
        wrong = [other for other in LABELS if other != label]
        answers = {
            model: rng.choice(wrong) if rng.random() < rate else label
            for model, rate in DISAGREEMENT.items()
        }
        size = 40 + len(text) // 4
        tokens = {model: (float(size), 1.0) for model in answers}
        rows.append(
            Row(item_id=str(number), input=text, answers=answers, tokens=tokens)
        )
    return Trace(rows, REFERENCE, ["medium", "small"], PRICES)
