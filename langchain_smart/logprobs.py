"""Logprobs of LangChain's messages: what they say of an answer, and how they go."""

from __future__ import annotations

import math
from typing import Any

from langchain_core.messages import AIMessage

from smart_engine.runtime.signals import LOGPROBS

__all__ = ["confidence_of", "without_logprobs"]


def confidence_of(message: AIMessage) -> float | None:
    """Return a model's own score of its answer, 0 to 1, if its message carries one.

    `response_metadata["confidence"]` wins. Otherwise it is the geometric mean of the
    probabilities of the answer's tokens: unlike their product it does not depend on
    the answer's length; on an answer of one token both are the same.
    """
    metadata = message.response_metadata
    stated = metadata.get("confidence")
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        return float(stated)
    try:
        logs = [float(token["logprob"]) for token in metadata["logprobs"]["content"]]
        return math.exp(min(0.0, sum(logs) / len(logs)))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # none requested, or not in OpenAI's form


def without_logprobs(answer: Any) -> Any:
    """Return an answer, or a piece of one, as it is where nobody asks for logprobs.

    That is a message, or data that contains messages.
    """
    if isinstance(answer, AIMessage) and LOGPROBS in answer.response_metadata:
        own = {**answer.response_metadata}
        del own[LOGPROBS]
        return answer.model_copy(update={"response_metadata": own})
    if type(answer) is dict:
        return {name: without_logprobs(part) for name, part in answer.items()}
    if type(answer) is list:
        return [without_logprobs(part) for part in answer]
    return answer
