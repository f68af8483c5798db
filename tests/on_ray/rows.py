"""Smart models that actors make, whose calls a test finds in a file."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from fakes import Scripted, say

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(1, 1), "small": Price(0.05, 0.05)}


def smart(calls=None, deadly=(), script=say, **settings):
    """Return a model that notes each call in a folder, and dies of some items."""
    models = [
        Scripted(name=name, script=partial(answer, name, calls, deadly, script))
        for name in PRICES
    ]
    given = {"prices": PRICES, "seed": 3, "max_concurrency": 8, **settings}
    return SmartChatModel(reference=models[0], candidates=models[1:], **given)


def answer(name, calls, deadly, script, text, kwargs):
    item = int(text.rsplit(maxsplit=1)[-1])
    if calls is not None:
        with (Path(calls) / str(os.getpid())).open("a") as file:
            file.write(f"{item} {name}\n")
    if item in deadly:
        os._exit(1)
    return script(name)(text, kwargs)


def made(calls):
    """Return every call that was made, by whichever process."""
    lines = [line for path in Path(calls).iterdir() for line in path.open()]
    return [(int(item), name) for item, name in map(str.split, lines)]
