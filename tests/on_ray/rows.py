"""Smart models that actors make, whose calls a test finds in a file."""

from __future__ import annotations

import os
from functools import cache, partial
from pathlib import Path

from fakes import Scripted, say
from langchain_core.rate_limiters import InMemoryRateLimiter

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(1, 1), "small": Price(0.05, 0.05)}


def smart(calls=None, deadly=(), script=say, latency=0.0, **settings):
    """Return a model that notes each call in a folder, and dies of some items."""
    models = [
        Scripted(
            name=name,
            script=partial(answer, name, calls, deadly, script),
            latency=latency,
        )
        for name in PRICES
    ]
    given = {"prices": PRICES, "seed": 3, "max_concurrency": 8, **settings}
    return SmartChatModel(reference=models[0], candidates=models[1:], **given)


@cache
def one():
    """Return the same model to whoever asks in a process."""
    return smart()


def limited(calls):
    """Return a model that is asked thirty times a second at most."""
    limiter = InMemoryRateLimiter(
        requests_per_second=30, check_every_n_seconds=0.01, max_bucket_size=2
    )
    return smart(calls, rate_limiter=limiter, strategy="reference")


def answer(name, calls, deadly, script, text, kwargs):
    item = int(text.rsplit(maxsplit=1)[-1])
    if calls is not None:
        with (Path(calls) / str(os.getpid())).open("a") as file:
            file.write(f"{item} {name}\n")
    if item in deadly:
        os._exit(1)
    return script(name)(text, kwargs)


def made(calls, process="*"):
    """Return every call that was made, by whichever process."""
    lines = [line for path in Path(calls).glob(str(process)) for line in path.open()]
    whole = [line.split() for line in lines if line.endswith("\n")]
    return [(int(item), name) for item, name in whole]
