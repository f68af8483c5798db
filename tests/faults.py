"""Whatever goes wrong with a model's answer, and the verbs in which it does.

An item's text says who is at fault, and which fault it is; all other items are answered
well. An `Adapter` puts such items to one verb, and says what came of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from loopback import Asked, Broken, Calls, Fault, Odd, Refusal
from pydantic import BaseModel

from langchain_smart import Label, Price, SmartChatModel, SmartRunnable
from llama_index_smart import SmartLLM

Good = str | Calls

TERMS: dict[str, Any] = {
    "prices": {"big": Price(10, 30), "small": Price(0.1, 0.4)},
    "equivalence": Label(["yes", "no"]),
    "max_disagreement": 0.4,
    "confidence": 0.8,
    "max_concurrency": 8,
}
ONCE = {"max_retries": 0}
"""Settings of clients that ask but once."""


def half(good: Good) -> Good:
    """Return an answer that its limit of tokens has cut off."""
    if isinstance(good, str):
        return good[: len(good) // 2]
    ((name, arguments),) = good.calls
    text = json.dumps(arguments)
    return Calls([(name, text[: len(text) // 2])])


def renamed(good: Good) -> Good:
    """Return a call of a tool that nobody offered, or an object nobody asked for."""
    if isinstance(good, str):
        return good.replace("label", "verdict")
    return Calls([("Shred", arguments) for _, arguments in good.calls])


def garbled(good: Good) -> Good:
    """Return a call whose arguments are no JSON, or an object that is none."""
    if isinstance(good, str):
        return "label: yes"
    return Calls([(name, "label: yes") for name, _ in good.calls])


FAULTS: dict[str, Callable[[Good], Any]] = {
    "busy": lambda _: Fault("busy", 429, {"Retry-After": "0.01"}),
    "500": lambda _: Fault("boom", 500),
    "503": lambda _: Fault("overloaded", 503),
    "forbidden": lambda _: Fault("no such model", 404),
    "too long": lambda _: Fault("too long", 400, code="context_length_exceeded"),
    "filtered question": lambda _: Fault("filtered", 400, code="content_filter"),
    "error as an answer": lambda _: Fault("upstream failed", 200),
    "reset": lambda _: Fault("reset"),
    "silent": lambda _: Fault("silent"),
    "cut off": Broken,
    "malformed": lambda _: Fault("malformed"),
    "empty": lambda _: "",
    "refusal": lambda _: Refusal("I will not."),
    "unreadable": lambda _: "who knows",
    "filtered answer": lambda _: Odd("", finish="content_filter"),
    "truncated": lambda good: Odd(half(good), finish="length"),
    "no usage": lambda good: Odd(good, usage=None),
    "negative usage": lambda good: Odd(good, usage={"prompt_tokens": -7}),
    "absurd usage": lambda good: Odd(
        good, usage={"prompt_tokens_details": {"cached_tokens": 9999}}
    ),
    "usage in words": lambda good: Odd(good, usage={"prompt_tokens": "many"}),
}
STALLED = {"stalled": lambda good: Broken(good, stalls=True)}
WRONG_CALLS = {"unknown tool": renamed, "no JSON": garbled}
EVERY = {**FAULTS, **STALLED, **WRONG_CALLS}


class Verdict(BaseModel):
    """Whether it is so."""

    label: str


def good_answer(body: dict[str, Any]) -> Good:
    """Return what a model says that is not at fault."""
    if body.get("tools"):
        name = body["tools"][0]["function"]["name"]
        return Calls([(name, {"label": "yes"})])
    return '{"label": "yes"}' if body.get("response_format") else "yes"


def answer(model: str, text: Asked, attempt: int) -> Any:
    """Say what an item's text tells this model to say."""
    good = good_answer(text.body)
    _, who, fault = text.split(" | ")
    return EVERY[fault](good) if who == model else good


def impatient(request: httpx.Request) -> None:
    """Give up soon on who says nothing, or nothing more."""
    body = json.loads(request.content)
    _, who, fault = Asked.of(body).split(" | ")
    soon = {"silent": 0.05, "stalled": 0.2}
    if who == body["model"] and fault in soon:
        patient = dict.fromkeys(("connect", "write", "pool"), 20.0)
        request.extensions["timeout"] = {**patient, "read": soon[fault]}


async def aimpatient(request: httpx.Request) -> None:
    """Give up soon on who says nothing."""
    impatient(request)


class Answer(NamedTuple):
    """What came of an item: a text or an error, what was shown, who answered."""

    text: str | None
    error: BaseException | None
    shown: str
    told: dict[str, Any]


BATCHES = ("batch", "objects", "completed", "chats")
"""Verbs that take all items at once."""

SHOWN = ("pieces", "events", "texts", "called", "filled")
"""Verbs that show an answer while it comes."""


class Adapter:
    """Puts items to the verbs of a smart model.

    Attributes:
        verbs: The verbs of the default tests.
        further: Other ways to ask the same.
        smart: What is asked.

    `coming` and `acoming` return what yields an answer piece by piece.
    """

    verbs: tuple[str, ...] = ("whole", "batch", "pieces", "tools", "object")
    further: tuple[str, ...] = ()
    smart: Any

    def ask(self, verb: str, items: list[str]) -> list[Answer]:
        if verb in BATCHES:
            return [self.came(answer) for answer in getattr(self, verb)(items)]
        answers = []
        for item in items:
            shown: list[str] = []
            try:
                answers.append(self.came(getattr(self, verb)(item, shown), shown))
            except Exception as error:  # noqa: BLE001 - what came of it
                answers.append(self.came(error, shown))
        return answers

    async def aask(self, verb: str, items: list[str]) -> list[Answer]:
        if verb in BATCHES:
            found = await getattr(self, f"a{verb}")(items)
            return [self.came(answer) for answer in found]
        answers = []
        for item in items:
            shown: list[str] = []
            try:
                said = await getattr(self, f"a{verb}")(item, shown)
                answers.append(self.came(said, shown))
            except Exception as error:  # noqa: BLE001 - what came of it
                answers.append(self.came(error, shown))
        return answers

    def came(self, answer: Any, shown: list[str] | None = None) -> Answer:
        if isinstance(answer, BaseException):
            return Answer(None, answer, "".join(shown or ()), {})
        text, told = answer
        return Answer(text, None, "".join(shown or ()), told)


def called(calls: list[tuple[str, Any]]) -> str:
    """Return calls as a text."""
    return " ".join(f"{name}({arguments.get('label')})" for name, arguments in calls)


def read_all(read: Callable[[Any], Any], answers: list[Any]) -> list[Any]:
    """Read the answers of a batch; errors stay as they are."""
    return [a if isinstance(a, BaseException) else read(a) for a in answers]


class LangChain(Adapter):
    """The verbs of the chat model."""

    verbs = (*Adapter.verbs, "objects")
    further = ("completed", "events")

    def __init__(
        self,
        url: str,
        sync: httpx.Client,
        asynchronous: Any,
        client: Mapping[str, Any] = ONCE,
        **settings: Any,
    ) -> None:
        def member(name: str) -> ChatOpenAI:
            at = {"base_url": url, "api_key": "none", "http_client": sync}
            at["http_async_client"] = asynchronous
            return ChatOpenAI(model=name, timeout=20, **at, **client)

        members = {"reference": member("big"), "candidates": [member("small")]}
        self.smart = SmartChatModel(**members, **{**TERMS, **settings})
        self.tooled = self.smart.bind_tools([Verdict])
        self.strict = self.smart.with_structured_output(Verdict, include_raw=True)
        self.loose = self.smart.with_structured_output(
            Verdict, method="json_mode", include_raw=True
        )

    @staticmethod
    def read(message: Any) -> Any:
        calls = [(call["name"], call["args"]) for call in message.tool_calls]
        text = called(calls) if calls else message.content
        return text, message.response_metadata["smart"]

    def whole(self, item: str, shown: list[str]) -> Any:
        return self.read(self.smart.invoke(item))

    async def awhole(self, item: str, shown: list[str]) -> Any:
        return self.read(await self.smart.ainvoke(item))

    def coming(self, item: str) -> Any:
        return self.smart.stream(item)

    async def acoming(self, item: str) -> Any:
        return self.smart.astream(item)

    def pieces(self, item: str, shown: list[str]) -> Any:
        told: dict[str, Any] = {}
        for chunk in self.smart.stream(item):
            shown.append(chunk.content)
            told |= chunk.response_metadata.get("smart", {})
        return "".join(shown), told

    async def apieces(self, item: str, shown: list[str]) -> Any:
        told: dict[str, Any] = {}
        async for chunk in self.smart.astream(item):
            shown.append(chunk.content)
            told |= chunk.response_metadata.get("smart", {})
        return "".join(shown), told

    def tools(self, item: str, shown: list[str]) -> Any:
        return self.read(self.tooled.invoke(item))

    async def atools(self, item: str, shown: list[str]) -> Any:
        return self.read(await self.tooled.ainvoke(item))

    @staticmethod
    def read_object(found: dict[str, Any]) -> Any:
        if found["parsing_error"] is not None:
            return found["parsing_error"]
        return found["parsed"].label, found["raw"].response_metadata["smart"]

    def object(self, item: str, shown: list[str]) -> Any:
        return self.read_object(self.strict.invoke(item))

    async def aobject(self, item: str, shown: list[str]) -> Any:
        return self.read_object(await self.strict.ainvoke(item))

    def batch(self, items: list[str]) -> list[Any]:
        return read_all(self.read, self.smart.batch(items, return_exceptions=True))

    async def abatch(self, items: list[str]) -> list[Any]:
        answers = await self.smart.abatch(items, return_exceptions=True)
        return read_all(self.read, answers)

    def objects(self, items: list[str]) -> list[Any]:
        found = self.loose.batch(items, return_exceptions=True)
        return read_all(self.read_object, found)

    async def aobjects(self, items: list[str]) -> list[Any]:
        found = await self.loose.abatch(items, return_exceptions=True)
        return read_all(self.read_object, found)

    def completed(self, items: list[str]) -> list[Any]:
        ended = dict(self.smart.batch_as_completed(items, return_exceptions=True))
        return read_all(self.read, [ended[n] for n in range(len(items))])

    async def acompleted(self, items: list[str]) -> list[Any]:
        ending = self.smart.abatch_as_completed(items, return_exceptions=True)
        ended = {place: answer async for place, answer in ending}
        return read_all(self.read, [ended[n] for n in range(len(items))])

    def events(self, item: str, shown: list[str]) -> Any:
        told: dict[str, Any] = {}
        for chunk in self.smart.transform(iter([item])):
            shown.append(chunk.content)
            told |= chunk.response_metadata.get("smart", {})
        return "".join(shown), told

    async def aevents(self, item: str, shown: list[str]) -> Any:
        told: dict[str, Any] = {}
        async for event in self.smart.astream_events(item):
            if event["event"] == "on_chat_model_stream":
                chunk = event["data"]["chunk"]
                shown.append(chunk.content)
                told |= chunk.response_metadata.get("smart", {})
        return "".join(shown), told


class Chains(Adapter):
    """The verbs of a chain that ends in a text; which tier said it is not told."""

    verbs = ()
    further = ("whole", "batch", "pieces", "completed", "events")

    def __init__(
        self,
        url: str,
        sync: httpx.Client,
        asynchronous: Any,
        client: Mapping[str, Any] = ONCE,
        max_retries: int = 0,
        **settings: Any,
    ) -> None:
        prompt = ChatPromptTemplate.from_template("{item}")

        def chain(name: str) -> Any:
            at = {"base_url": url, "api_key": "none", "http_client": sync}
            at |= {"http_async_client": asynchronous, "stream_usage": True}
            model: Any = ChatOpenAI(model=name, timeout=20, **at, **client)
            if max_retries:
                times = {"stop_after_attempt": 1 + max_retries}
                model = model.with_retry(**times, wait_exponential_jitter=False)
            return prompt | model | StrOutputParser()

        tiers = {"reference": {"long": chain("big")}}
        tiers["candidates"] = {"short": chain("small")}
        self.smart = SmartRunnable(**tiers, **{**TERMS, **settings})

    def whole(self, item: str, shown: list[str]) -> Any:
        return self.smart.invoke(item), {}

    async def awhole(self, item: str, shown: list[str]) -> Any:
        return await self.smart.ainvoke(item), {}

    def pieces(self, item: str, shown: list[str]) -> Any:
        shown.extend(self.smart.stream(item))
        return "".join(shown), {}

    async def apieces(self, item: str, shown: list[str]) -> Any:
        async for piece in self.smart.astream(item):
            shown.append(piece)
        return "".join(shown), {}

    def events(self, item: str, shown: list[str]) -> Any:
        shown.extend(self.smart.transform(iter([item])))
        return "".join(shown), {}

    async def aevents(self, item: str, shown: list[str]) -> Any:
        async for event in self.smart.astream_events(item):
            if event["event"] == "on_chain_stream" and not event["parent_ids"]:
                shown.append(event["data"]["chunk"])
        return "".join(shown), {}

    @staticmethod
    def read(text: str) -> Any:
        return text, {}

    def batch(self, items: list[str]) -> list[Any]:
        return read_all(self.read, self.smart.batch(items, return_exceptions=True))

    async def abatch(self, items: list[str]) -> list[Any]:
        answers = await self.smart.abatch(items, return_exceptions=True)
        return read_all(self.read, answers)

    completed, acompleted = LangChain.completed, LangChain.acompleted
    coming, acoming = LangChain.coming, LangChain.acoming


class LlamaIndex(Adapter):
    """The verbs of the LLM."""

    further = ("chat", "chats", "texts", "predicted", "called", "filled")

    def __init__(
        self,
        url: str,
        sync: httpx.Client,
        asynchronous: Any,
        client: Mapping[str, Any] = ONCE,
        **settings: Any,
    ) -> None:
        def member(name: str) -> OpenAILike:
            at = {"api_base": url, "api_key": "none", "http_client": sync}
            at |= {"async_http_client": asynchronous, "timeout": 20}
            can = {"is_chat_model": True, "is_function_calling_model": True}
            return OpenAILike(model=name, **can, **at, **client)

        members = {"reference": member("big"), "candidates": [member("small")]}
        self.smart = SmartLLM(**members, **{**TERMS, **settings})
        self.tool = FunctionTool.from_defaults(lambda label: label, name="Verdict")
        self.prompt = PromptTemplate("{item}")

    def whole(self, item: str, shown: list[str]) -> Any:
        return self.read(self.smart.complete(item))

    async def awhole(self, item: str, shown: list[str]) -> Any:
        return self.read(await self.smart.acomplete(item))

    @staticmethod
    def read(response: Any) -> Any:
        return response.text, response.additional_kwargs["smart"]

    def coming(self, item: str) -> Any:
        return self.smart.stream_chat([ChatMessage(content=item)])

    async def acoming(self, item: str) -> Any:
        return await self.smart.astream_chat([ChatMessage(content=item)])

    def pieces(self, item: str, shown: list[str]) -> Any:
        for piece in self.smart.stream_chat([ChatMessage(content=item)]):
            shown.append(piece.delta or "")
        return "".join(shown), piece.additional_kwargs["smart"]

    async def apieces(self, item: str, shown: list[str]) -> Any:
        async for piece in await self.smart.astream_chat([ChatMessage(content=item)]):
            shown.append(piece.delta or "")
        return "".join(shown), piece.additional_kwargs["smart"]

    def read_calls(self, response: Any) -> Any:
        found = self.smart.get_tool_calls_from_response(
            response, error_on_no_tool_call=False
        )
        calls = called([(call.tool_name, call.tool_kwargs) for call in found])
        return calls or response.message.content, response.additional_kwargs["smart"]

    def tools(self, item: str, shown: list[str]) -> Any:
        return self.read_calls(self.smart.chat_with_tools([self.tool], item))

    async def atools(self, item: str, shown: list[str]) -> Any:
        return self.read_calls(await self.smart.achat_with_tools([self.tool], item))

    def object(self, item: str, shown: list[str]) -> Any:
        found = self.smart.structured_predict(Verdict, self.prompt, item=item)
        return found.label, {}

    async def aobject(self, item: str, shown: list[str]) -> Any:
        found = await self.smart.astructured_predict(Verdict, self.prompt, item=item)
        return found.label, {}

    def batch(self, items: list[str]) -> list[Any]:
        answers = self.smart.complete_batch(items, return_exceptions=True)
        return read_all(self.read, answers)

    async def abatch(self, items: list[str]) -> list[Any]:
        answers = await self.smart.acomplete_batch(items, return_exceptions=True)
        return read_all(self.read, answers)

    @staticmethod
    def read_chat(response: Any) -> Any:
        return response.message.content or "", response.additional_kwargs["smart"]

    def chat(self, item: str, shown: list[str]) -> Any:
        return self.read_chat(self.smart.chat([ChatMessage(content=item)]))

    async def achat(self, item: str, shown: list[str]) -> Any:
        return self.read_chat(await self.smart.achat([ChatMessage(content=item)]))

    def chats(self, items: list[str]) -> list[Any]:
        chats = [[ChatMessage(content=item)] for item in items]
        answers = self.smart.chat_batch(chats, return_exceptions=True)
        return read_all(self.read_chat, answers)

    async def achats(self, items: list[str]) -> list[Any]:
        chats = [[ChatMessage(content=item)] for item in items]
        answers = await self.smart.achat_batch(chats, return_exceptions=True)
        return read_all(self.read_chat, answers)

    def texts(self, item: str, shown: list[str]) -> Any:
        for piece in self.smart.stream_complete(item):
            shown.append(piece.delta or "")
        return "".join(shown), piece.additional_kwargs["smart"]

    async def atexts(self, item: str, shown: list[str]) -> Any:
        async for piece in await self.smart.astream_complete(item):
            shown.append(piece.delta or "")
        return "".join(shown), piece.additional_kwargs["smart"]

    def predicted(self, item: str, shown: list[str]) -> Any:
        return self.smart.predict(self.prompt, item=item), {}

    async def apredicted(self, item: str, shown: list[str]) -> Any:
        return await self.smart.apredict(self.prompt, item=item), {}

    def called(self, item: str, shown: list[str]) -> Any:
        for piece in self.smart.stream_chat_with_tools([self.tool], item):
            shown.append(repr(piece))
        return self.read_calls(piece)

    async def acalled(self, item: str, shown: list[str]) -> Any:
        async for piece in await self.smart.astream_chat_with_tools([self.tool], item):
            shown.append(repr(piece))
        return self.read_calls(piece)

    def filled(self, item: str, shown: list[str]) -> Any:
        asked = (Verdict, self.prompt)
        for found in self.smart.stream_structured_predict(*asked, item=item):
            shown.append(repr(found))
        return found.label, {}

    async def afilled(self, item: str, shown: list[str]) -> Any:
        asked = (Verdict, self.prompt)
        coming = await self.smart.astream_structured_predict(*asked, item=item)
        async for found in coming:
            shown.append(repr(found))
        return found.label, {}
