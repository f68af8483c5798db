"""Streamed answers: pieces hold all so far, any of them may report the usage."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.llms import ChatMessage, ChatResponse, CustomLLM, LLMMetadata
from pydantic import TypeAdapter, ValidationError

from llama_index_smart import Price, SmartLLM
from llama_index_smart.call import LLMRequester
from llama_index_smart.request import Ask
from smart_engine import Usage
from smart_engine.calls import Result
from smart_engine.errors import UnparseableAnswerError
from smart_engine.runtime import requester as runtime
from smart_engine.serving.members import Member

USED = {"prompt_tokens": 10, "completion_tokens": 3}


class Streaming(CustomLLM):
    """Streams certain pieces; a piece that is an error is raised."""

    model: str = "big"
    pieces: list[Any]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model, is_chat_model=True)

    def complete(self, prompt: str, formatted: bool = False, **_):
        raise NotImplementedError

    stream_complete = complete

    def chat(self, messages, **_):
        return self.pieces[-1]

    def stream_chat(self, messages, **_):
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def astream_chat(self, messages, **_):
        async def pieces():
            for piece in self.stream_chat(messages):
                yield piece

        return pieces()


def piece(text: str, used: dict[str, int] | None = None) -> ChatResponse:
    message = ChatMessage(role="assistant", content=text)
    return ChatResponse(message=message, delta=text[-1], additional_kwargs=used or {})


def invalid() -> ValidationError:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(int).validate_python("no number")
    return error.value


def requester_of(*pieces) -> LLMRequester:
    member = Member("big", Streaming(pieces=list(pieces)), Price(100, 100))
    ask = Ask.chat([ChatMessage("Well?")], {})
    return LLMRequester({"big": member}, ask, False, lambda _: None)


async def streamed(requester, is_async) -> tuple[list[ChatResponse], Result]:
    made = runtime.Streaming(requester, "big")
    pieces = [p async for p in made.astream()] if is_async else list(made.stream())
    return pieces, made.result(None)


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_last_usage_that_a_piece_reports_is_paid(is_async):
    first = {"prompt_tokens": 10, "completion_tokens": 1}
    requester = requester_of(piece("y", first), piece("ye", USED), piece("yes"))
    pieces, result = await streamed(requester, is_async)
    assert result.answer.message.content == "yes"
    assert result.usage == Usage(10, 3)
    assert result.timing.seconds >= 0
    # A usage before the end does not tell all: more may have been billed since.
    assert requester.failed("big", pieces[:2], RuntimeError()).usage is None


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("raised", [[], [invalid()]])
async def test_a_stream_without_a_piece_is_no_answer(raised, is_async):
    with pytest.raises(UnparseableAnswerError, match="ended before it began"):
        await streamed(requester_of(*raised), is_async)


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_error_after_a_piece_is_what_it_is(is_async):
    with pytest.raises(ValidationError):
        await streamed(requester_of(piece("y"), invalid()), is_async)


def test_one_answer_is_shown_whoever_gave_it():
    names = ("big", "mid", "small")
    llms = [Streaming(model=n, pieces=[piece("n"), piece("no", USED)]) for n in names]
    prices = {name: Price(100 / 10**n, 0) for n, name in enumerate(names)}
    smart = SmartLLM(
        reference=llms[0], candidates=llms[1:], prices=prices, max_disagreement=0.2
    )
    served = set()
    for _ in range(300):
        *shown, last = smart.stream_chat([ChatMessage("Well?")])
        assert [piece.delta for piece in shown] in (["n", "o"], ["no"])
        assert not any("prompt_tokens" in piece.additional_kwargs for piece in shown)
        assert (last.delta, last.message.content) == ("", "no")
        mark = last.additional_kwargs["smart"]
        served.add(mark["model"])
        assert shown[0].additional_kwargs["smart"]["model"] == mark["model"]
    assert served > {"big"}
    assert smart.report().saved > 0
