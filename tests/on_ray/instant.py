"""Models that answer at once, and what a user writes to ask them by hand."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_smart import Price, SmartChatModel

PRICES = {"big": Price(10, 10), "small": Price(0.1, 0.1)}
USAGE = {"input_tokens": 12, "output_tokens": 1, "total_tokens": 13}
AT_ONCE = 8


class Instant(BaseChatModel):
    """Answers at once; the small one is wrong on one item in forty."""

    name: str | None = None

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        item = int(messages[-1].text.rsplit(maxsplit=1)[-1])
        wrong = self.name == "small" and item % 40 == 0
        said = AIMessage("no" if wrong else f"yes {item % 2}", usage_metadata=USAGE)
        return ChatResult(generations=[ChatGeneration(message=said)])


def smart():
    big, small = (Instant(name=name) for name in PRICES)
    given = {"prices": PRICES, "seed": 3, "max_concurrency": 2 * AT_ONCE}
    return SmartChatModel(reference=big, candidates=[small], **given)


class ByHand:
    """Asks the models that rows name, in a plain `map_batches`."""

    def __init__(self):
        self.models = {name: Instant(name=name) for name in PRICES}

    def __call__(self, batch):
        texts = [f"Sort item {item}" for item in batch["n"]]
        answers = [""] * len(texts)
        for name, model in self.models.items():
            places = [p for p, each in enumerate(batch["model"]) if each == name]
            asked = [texts[place] for place in places]
            made = model.batch(asked, {"max_concurrency": AT_ONCE})
            for place, message in zip(places, made, strict=True):
                answers[place] = message.text
        return {**batch, "answer": answers}
