"""Which models are asked for the logprobs of their answers, beside the answers.

Logprobs cost nothing, and tell how sure a candidate is of an answer. It is asked for
them where its class declares a field `logprobs` that its user has left open. A server
that refuses them bills nothing: the call is made again without them, and if that helps
the model is not asked for them any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from smart_engine.money.limits import settings_of
from smart_engine.runtime.failure import refuses

__all__ = ["LOGPROBS", "CallSignals", "Signals", "completes_chats", "reports_logprobs"]

LOGPROBS = "logprobs"
"""Argument of a call that asks for them, and where they are in what comes back."""


class Signals:
    """The models that are asked for logprobs, as all calls of a smart object know them.

    Args:
        models: Names of those that are asked until they refuse.

    Attributes:
        models: The same names.
        taken: Those whose server has answered with them.

    Example:
        ```python
        signals = Signals(["small"])
        call = CallSignals(signals, "small")
        assert call.dropped(ValueError("this model has no logprobs"))
        assert not signals.asked("small")
        assert not call.dropped(ValueError("this model has no logprobs"))  # once a call
        ```
    """

    def __init__(self, models: Iterable[str] = ()) -> None:
        self.models = frozenset(models)
        self.taken: set[str] = set()
        self._refused: set[str] = set()

    def asked(self, model: str) -> bool:
        """Whether a model is asked for them."""
        return model in self.models and model not in self._refused

    def refuse(self, model: str) -> None:
        """Ask a model for them no more."""
        self._refused.add(model)


class CallSignals:
    """Whether one call asks for logprobs: once refused, it goes on without.

    Args:
        signals: The models that are asked.
        model: Name of the model.
    """

    def __init__(self, signals: Signals, model: str) -> None:
        self._signals, self._model = signals, model
        self._asked = signals.asked(model)
        self._dropped = False

    def dropped(self, error: BaseException) -> bool:
        """Whether an error may be gone without them: then the call goes without.

        An error that does not name them may be about them only as long as the server
        has never taken them.
        """
        named = LOGPROBS[:-1] in str(error).lower()
        in_doubt = self._model not in self._signals.taken and refuses(error)
        if not self._asked or not (named or in_doubt):
            return False
        self._asked, self._dropped = False, True
        if named:
            self._signals.refuse(self._model)
        return True

    def answered(self) -> None:
        """Learn from the call's answer: its server takes them, or does not."""
        if self._dropped:
            self._signals.refuse(self._model)
        elif self._asked:
            self._signals.taken.add(self._model)


def reports_logprobs(model: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a model can be asked for logprobs, and its user has left that open.

    Reasoning models have none.

    Args:
        model: A model of LangChain or LlamaIndex.
        arguments: What is bound to it.

    Example:
        ```python
        from pydantic import BaseModel


        class Chat(BaseModel):
            logprobs: bool | None = None
            model_kwargs: dict = {}


        assert reports_logprobs(Chat(), {})
        assert not reports_logprobs(Chat(logprobs=False), {})
        assert not reports_logprobs(Chat(), {"logprobs": True})
        ```
    """
    field = getattr(type(model), "model_fields", {}).get(LOGPROBS)
    if field is None or bool not in (field.annotation, *get_args(field.annotation)):
        return False  # a number of them, as other services have it
    reasons = (getattr(model, "profile", None) or {}).get("reasoning_output")
    if reasons or getattr(model, LOGPROBS) is not None:
        return False
    places = settings_of(arguments, model)
    places += [place["extra_body"] for place in places if place.get("extra_body")]
    return not any(LOGPROBS in place for place in places)


def completes_chats(model: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether a call is one of chat completions: OpenAI's other service has no such."""
    other = getattr(model, "_use_responses_api", None)
    settings = {**arguments, **(getattr(model, "model_kwargs", None) or {})}
    return other is None or not other(settings)
