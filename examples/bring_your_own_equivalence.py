"""Free text: no two answers are equal, so define when they mean the same.

    python examples/bring_your_own_equivalence.py

Answers are the same if they are equal but for form, or if their embeddings are close
*and* a judge agrees. Embeddings are cheap and reject clearly different answers, but
hardly notice a wrong figure; the judge does. The cost of both is in the ledger, and the
certificate names the whole rule with its models.

No key is needed: models, embedding and judge are scripted. `--live` calls OpenAI's
instead; it needs OPENAI_API_KEY and costs money.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import zlib
from typing import NamedTuple

from langchain_core.language_models import BaseChatModel, LanguageModelInput

from langchain_smart import ChatJudge, Price, RecordedChatModel, SmartChatModel
from smart_engine import (
    Equivalence,
    Judge,
    Normalized,
    Outcome,
    Similar,
    Trace,
    Usage,
)
from smart_engine.offline.traces import Row

PRODUCTS = ("desk lamp", "office chair", "standing desk", "monitor arm", "bookshelf")
FACTS = {
    "warranty": ("{n} years", "The {product} comes with a warranty of {n} years."),
    "delivery": ("{n} days", "Delivery of the {product} takes about {n} days."),
    "return period": ("{n} weeks", "You may send the {product} back for {n} weeks."),
}
ERRS = {"big": 0.0, "medium": 0.01, "small": 0.03}
PRICES = {
    "big": Price(input=10.0, output=30.0),
    "medium": Price(input=0.50, output=1.50),
    "small": Price(input=0.10, output=0.40),
}
LIVE = {
    "gpt-5": Price(input=1.25, output=10.0),
    "gpt-5-mini": Price(input=0.25, output=2.0),
}
JUDGING = Price(input=0.05, output=0.40)


class Setting(NamedTuple):
    """The models, their prices and the equivalence."""

    models: list[BaseChatModel]
    prices: dict[str, Price]
    rule: Equivalence


def main() -> int:
    """Answer the questions; show the cost and the guarantee."""
    arguments = _arguments()
    trace = questions(arguments.questions)
    setting = live() if arguments.live else scripted(trace)
    smart = SmartChatModel(
        reference=setting.models[0],
        candidates=setting.models[1:],
        prices=setting.prices,
        equivalence=setting.rule,
        max_disagreement=arguments.max_disagreement,
        confidence=arguments.confidence,
        task="shop",
        promise="batch",  # one job alone
    )
    asked: list[LanguageModelInput] = [row.input or "" for row in trace.rows]
    # If the reference does not agree with itself, no candidate can agree with it.
    print(smart.self_agreement(asked, n=20))
    answers = smart.batch(asked)
    for question, answer in zip(asked[:3], answers, strict=False):
        print(f"{question}\n  {answer.text}")
    report = smart.report()
    certificate = report.certificates[0]
    print(f"\n{report}\n\n{certificate.claim}")
    print(
        f"{certificate.profiled:,} of {certificate.items:,} answers were audited; the "
        f"reference alone would have cost about "
        f"{certificate.reference_only_cost or 0.0:.4f} USD, all of it together cost "
        f"{certificate.cost:.4f} USD."
    )
    return 0


def scripted(trace: Trace) -> Setting:
    """Return a setting that needs no key."""
    near = Similar(embed, threshold=0.5, price=Price.per_call(1e-7), model="words 1")
    return Setting(
        [RecordedChatModel(trace=trace, model=name) for name in PRICES],
        PRICES,
        Normalized() | (near & Judge(judge, "scripted")),
    )


def live() -> Setting:
    """Return OpenAI's models."""
    if not os.environ.get("OPENAI_API_KEY"):
        sys.exit("--live needs OPENAI_API_KEY in the environment")
    import tiktoken
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    embeddings = OpenAIEmbeddings(model="text-embedding-3-small")
    encoding = tiktoken.encoding_for_model(embeddings.model)
    near = Similar(
        embeddings.embed_documents,
        threshold=0.5,
        many=True,
        price=Price(input=0.02, output=0),
        tokens=lambda text: len(encoding.encode(text)),
    )
    judging = ChatJudge(ChatOpenAI(model="gpt-5-nano"), price=JUDGING)
    return Setting(
        [ChatOpenAI(model=name) for name in LIVE], LIVE, Normalized() | (near & judging)
    )


def questions(count: int, seed: int = 0) -> Trace:
    """Return made-up questions with each scripted model's answers."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret is made here
    rows = []
    for number in range(count):
        product, fact = rng.choice(PRODUCTS), rng.choice(list(FACTS))
        text = f"Question {number:05d}: what is the {fact} of the {product}?"
        right = rng.randint(2, 9)
        answers = {}
        for name, share in ERRS.items():
            n = right + 1 if rng.random() < share else right
            short, long = FACTS[fact]
            form = f"The {fact} of the {product} is {short}." if name == "big" else long
            answers[name] = form.format(n=n, product=product)
        tokens = {name: (30.0, len(answer) / 4) for name, answer in answers.items()}
        rows.append(Row(input=text, answers=answers, tokens=tokens))
    return Trace(rows, "big", ["medium", "small"], PRICES)


def embed(text: str) -> list[float]:
    """Count the words, hashed into 256 places: a simple embedding."""
    vector = [0.0] * 256
    for word in re.findall(r"\w+", text.lower()):
        vector[zlib.crc32(word.encode()) % 256] += 1.0
    return vector


def judge(text: str) -> Outcome:
    """Compare the figures in two answers, as a judging model would."""
    pair = json.loads(text.split("\n")[-4])  # the line that is quoted
    first, second = (re.findall(r"\d+", pair[name]) for name in ("A", "B"))
    usage = Usage(len(text) / 4, 1)
    verdict = "same" if first == second else "different"
    return Outcome(verdict, JUDGING.cost(usage), usage)


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--max-disagreement", type=float, default=0.05)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--live", action="store_true", help="call real OpenAI models")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
