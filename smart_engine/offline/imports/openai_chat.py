"""Chat completions and responses of OpenAI's form, as programs log them themselves.

A record has a response, whole, and beside it its request, or the messages alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from smart_engine.offline.imports.content import answer_of, loaded, tokens_of
from smart_engine.offline.imports.logged import Format, LoggedCall, Record, Skipped

__all__ = ["OPENAI_CHAT"]

_ASKED = ("messages", "input", "prompt")


def _request(record: Record) -> Record | None:
    """Return what has the messages: the request, or the record itself."""
    request = loaded(record.get("request", record))
    fits = isinstance(request, Mapping) and request.keys() & set(_ASKED)
    return request if fits else None


def _fits(record: Record) -> bool:
    response = loaded(record.get("response"))
    whole = isinstance(response, Mapping) and response.keys() & {"choices", "output"}
    return bool(whole) and _request(record) is not None


def _read(record: Record) -> Iterator[LoggedCall | Skipped]:
    response, request = loaded(record.get("response")), _request(record)
    if record.get("error") or not isinstance(response, Mapping):
        yield Skipped("the call failed")
        return
    request = request or {}
    yield LoggedCall(
        model=str(response.get("model") or request.get("model") or ""),
        asked=next((request[name] for name in _ASKED if request.get(name)), None),
        answer=answer_of(response),
        tokens=tokens_of(response.get("usage")),
        provider=str(record.get("provider") or ""),
        project=str(record.get("project") or ""),
        name=str(record.get("task") or ""),
        gold=record.get("gold"),
    )


OPENAI_CHAT = Format("openai-chat", _fits, _read)
