"""A job in a process of its own: a batch with a store, against a server's URL.

Run with the URL, the store's file and the number of items; prints a JSON record of the
result. The test kills it at any moment, and runs it again.
"""

from __future__ import annotations

import json
import sys

from langchain_openai import ChatOpenAI

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 30), "small": Price(0.1, 0.4)}


def main(url: str, store: str, items: str) -> None:
    big, small = (
        ChatOpenAI(model=name, base_url=url, api_key="none", timeout=30)
        for name in PRICES
    )
    smart = SmartChatModel(
        reference=big,
        candidates=[small],
        prices=PRICES,
        max_disagreement=0.1,
        max_concurrency=4,
        store=store,
    )
    answers = smart.batch([f"item {number}" for number in range(int(items))])
    (certificate,) = smart.report().certificates
    record = {
        "answers": [answer.content for answer in answers],
        "certificate": certificate.model_dump(mode="json"),
        "restored": smart.report().restored,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
