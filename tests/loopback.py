"""An OpenAI-compatible provider of our own, which keeps a bill: on 127.0.0.1, or in
process behind an httpx client.

`script(model, text, attempt)` decides each answer: a text, a `Verdict` with logprobs,
`Calls` of tools, a `Refusal`, an answer after `Hidden` reasoning, an `Odd` one, one
that is `Broken` off, or a `Fault`; `text` is the last message's, and carries the whole
request in `text.body`. Everything the server answered with a usage that can be true is
counted, by model. `owed` has every request, with what a provider may bill for it before
it fails: all tokens that the request allows where no answer is sent. The server streams
to who asks for a stream, stops where it is told to, and a gauge says how many requests
it worked on at once.
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx


@dataclass(frozen=True)
class Fault:
    """What goes wrong instead of an answer."""

    kind: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None

    @property
    def free(self) -> bool:
        """Whether it shows that no model was at work."""
        return 400 <= self.status < 500 and self.status not in (408, 499)


@dataclass(frozen=True)
class Refusal:
    """What the model says where it will not answer; billed like an answer."""

    text: str


@dataclass(frozen=True)
class Calls:
    """Tools that the model calls, each with its arguments; a text is sent as it is."""

    calls: list[tuple[str, dict[str, Any] | str]]


@dataclass(frozen=True)
class Verdict:
    """A text, and the logprob of each of its tokens, for who asks for logprobs."""

    text: str
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Odd:
    """An answer that ends for another reason, or tells a usage that cannot be true."""

    answer: str | Calls
    finish: str | None = None
    usage: dict[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class Hidden:
    """An answer after reasoning that is in the total of its usage, and nowhere else."""

    answer: str | Calls
    tokens: int


@dataclass(frozen=True)
class Broken:
    """An answer of which only half is sent; then comes the end, or nothing at all."""

    answer: str | Calls
    stalls: bool = False


class Asked(str):  # noqa: SLOT000 - it carries more than a text
    """The text of a request's last message."""

    body: dict[str, Any]

    @classmethod
    def of(cls, body: dict[str, Any]) -> Asked:
        content = body["messages"][-1].get("content") or ""
        if not isinstance(content, str):
            content = " ".join(part.get("text", "") for part in content)
        asked = cls(content)
        asked.body = body
        return asked


class Owed(NamedTuple):
    """What one request may be billed, and whether the answer says so."""

    model: str
    text: str
    input_tokens: int
    output_tokens: int
    told: bool


Answer = str | Verdict | Calls | Refusal | Hidden | Odd | Broken
Script = Callable[[str, Any, int], "Answer | Fault"]


@dataclass(frozen=True)
class Reply:
    """What is sent: all parts of a body, or half of them; or nothing but a fault."""

    parts: list[bytes]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    broken: Broken | None = None
    fault: str | None = None

    @property
    def sent(self) -> list[bytes]:
        """The parts that arrive; of one part, half of its bytes."""
        if self.broken is None:
            return self.parts
        body = b"".join(self.parts)
        return self.parts[: len(self.parts) // 2] or [body[: len(body) // 2]]


class Provider:
    """Answers chat completions as a script says; counts what it bills."""

    def __init__(self, script: Script, latency: float = 0.0, piece: int = 1) -> None:
        self.script = script
        self.latency = latency
        self.piece = piece
        self.lock = threading.Lock()
        self.requests: Counter[str] = Counter()
        self.input_tokens: Counter[str] = Counter()
        self.output_tokens: Counter[str] = Counter()
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.bodies: list[dict[str, Any]] = []
        self.owed: list[Owed] = []

    def reply(self, body: dict[str, Any]) -> Reply:
        """Return what is sent to a request."""
        model, text = body["model"], Asked.of(body)
        with self.lock:
            self.bodies.append(body)
            self.requests[model] += 1
            self.attempts[model, text] += 1
            attempt = self.attempts[model, text]
        answer = self.script(model, text, attempt)
        if isinstance(answer, Fault):
            read, written = (0, 0) if answer.free else (len(text) or 1, _limit(body))
            self.owed.append(Owed(model, text, read, written, answer.free))
            return _failed(answer, streams=bool(body.get("stream")))
        odd = answer if isinstance(answer, Odd) else None
        broken = answer if isinstance(answer, Broken) else None
        hidden = answer.tokens if isinstance(answer, Hidden) else 0
        if isinstance(answer, Odd | Broken | Hidden):
            answer = answer.answer
        message, finish = _message(answer, body, attempt)
        finish = odd.finish or finish if odd else finish
        wanted = (body.get("stream_options") or {}).get("include_usage")
        wanted = bool(wanted or not body.get("stream"))
        usage = self._billed(model, text, message, hidden, odd, broken, wanted)
        head = {"id": "chatcmpl-1", "created": 0, "model": model}
        if tier := body.get("service_tier"):
            head["service_tier"] = tier
        choice = {"index": 0, "message": message, "finish_reason": finish}
        if isinstance(answer, Verdict) and body.get("logprobs"):
            logs = [{"token": "t", "bytes": [], "logprob": p} for p in answer.logprobs]
            choice["logprobs"] = {"content": logs, "refusal": None}
        if body.get("stream"):
            parts = _events(head, choice, usage if wanted else None, self.piece)
            kind = "text/event-stream"
        else:
            payload = {**head, "object": "chat.completion", "choices": [choice]}
            if usage is not None:
                payload["usage"] = usage
            parts, kind = [json.dumps(payload).encode()], "application/json"
        return Reply(parts, headers={"Content-Type": kind}, broken=broken)

    def _billed(
        self,
        model: str,
        text: str,
        message: dict[str, Any],
        hidden: int,
        odd: Odd | None,
        broken: Broken | None,
        wanted: bool,
    ) -> dict[str, Any] | None:
        """Return the usage that is told; on the bill if it arrives and is true."""
        said = json.dumps(message["tool_calls"]) if "tool_calls" in message else ""
        said += message.get("refusal") or message["content"] or ""
        used = {"prompt_tokens": len(text) or 1, "completion_tokens": len(said)}
        usage = {**used, "total_tokens": sum(used.values()) + hidden}
        written = used["completion_tokens"] + hidden
        told = wanted and not broken and (odd is None or odd.usage == {})
        self.owed.append(Owed(model, text, used["prompt_tokens"], written, told))
        if odd and odd.usage != {}:
            return None if odd.usage is None else {**usage, **odd.usage}
        if not broken:
            with self.lock:
                self.input_tokens[model] += used["prompt_tokens"]
                self.output_tokens[model] += written
        return usage


class Server(Provider, ThreadingHTTPServer):
    """A provider on a port of 127.0.0.1."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script: Script, latency: float = 0.0, piece: int = 1) -> None:
        Provider.__init__(self, script, latency, piece)
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep broken connections out of the test output."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for its header
    server: Server

    def log_message(self, *_: Any) -> None:
        """Keep requests out of the test output."""

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(size))
        with self._gauged():
            time.sleep(self.server.latency)
            self._send(self.server.reply(body))

    @contextmanager
    def _gauged(self) -> Iterator[None]:
        server = self.server
        with server.lock:
            server.in_flight += 1
            server.most_in_flight = max(server.most_in_flight, server.in_flight)
        try:
            yield
        finally:
            with server.lock:
                server.in_flight -= 1

    def _send(self, reply: Reply) -> None:
        if reply.fault == "reset":
            self.close_connection = True
            at_once = struct.pack("ii", 1, 0)  # else the connection ends in good order
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            return self.connection.close()
        if reply.fault == "silent":
            return self._stall()
        self.send_response(reply.status)
        size = str(sum(map(len, reply.parts)))
        given = {"Content-Type": "application/json", **reply.headers}
        for name, value in {**given, "Content-Length": size}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"".join(reply.sent))
        if reply.broken is None:
            return None
        self.close_connection = True
        return self._stall() if reply.broken.stalls else None

    def _stall(self) -> None:
        """Say nothing until the other side gives up, or half a minute has passed."""
        self.close_connection = True
        self.connection.settimeout(30)
        with suppress(OSError):
            self.rfile.read(1)


class InProcess(Provider, httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A provider behind an httpx client, without a socket: nothing waits for a fault.

    Who would wait in vain for a byte is told at once that the time is up.
    """

    url = "http://in.process/v1"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        reply = self.reply(json.loads(request.content))
        if reply.fault == "reset":
            raise httpx.ReadError("reset", request=request)
        if reply.fault == "silent":
            raise httpx.ReadTimeout("silent", request=request)
        headers = {"Content-Type": "application/json", **reply.headers}
        return httpx.Response(
            reply.status, headers=headers, stream=_Stream(reply, request)
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


class _Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The bytes of a reply, and the error that ends one which is broken off."""

    def __init__(self, reply: Reply, request: httpx.Request) -> None:
        self.reply = reply
        self.request = request

    def __iter__(self) -> Iterator[bytes]:
        yield from self.reply.sent
        if self.reply.broken:
            if self.reply.broken.stalls:
                raise httpx.ReadTimeout("stalled", request=self.request)
            raise httpx.RemoteProtocolError(
                "peer closed connection", request=self.request
            )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part


def _limit(body: dict[str, Any]) -> int:
    """Return the most tokens that a request allows an answer; 1 where it says none."""
    return body.get("max_completion_tokens") or body.get("max_tokens") or 1


def _failed(fault: Fault, *, streams: bool) -> Reply:
    """Return what is sent where something goes wrong."""
    if fault.kind in ("reset", "silent"):
        return Reply([], fault=fault.kind)
    if fault.kind == "malformed":
        return Reply([b'{"id": "chatcmpl-1", "choices": ['])
    if fault.kind == "strange":
        body = b'{"id": "chatcmpl-1", "choices": [["yes"]], "usage": [20, 3]}'
        return Reply([b"data: " + body + b"\n\n" if streams else body])
    error = {"message": fault.kind, "type": "server_error", "code": fault.code}
    body = json.dumps({"error": error}).encode()
    return Reply([body], fault.status, fault.headers)


def _events(
    head: dict[str, Any],
    choice: dict[str, Any],
    usage: dict[str, Any] | None,
    piece: int,
) -> list[bytes]:
    """Return a message as events: its role, piece by piece, the end, the usage."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += _deltas(choice["message"], piece)
    choices = [{"index": 0, "delta": d, "finish_reason": None} for d in deltas]
    choices[-1]["logprobs"] = choice.get("logprobs")
    end = choice["finish_reason"]
    choices.append({"index": 0, "delta": {}, "finish_reason": end})
    head = {**head, "object": "chat.completion.chunk"}
    chunks = [{**head, "choices": [choice]} for choice in choices]
    if usage is not None:
        chunks.append({**head, "choices": [], "usage": usage})
    lines = [*(json.dumps(chunk) for chunk in chunks), "[DONE]"]
    return [f"data: {line}\n\n".encode() for line in lines]


def _message(
    answer: str | Verdict | Calls | Refusal, body: dict[str, Any], attempt: int
) -> tuple[dict[str, Any], str]:
    """Return an answer as a message, and why it ends."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if isinstance(answer, Refusal):
        return {**message, "refusal": answer.text}, "stop"
    if isinstance(answer, Calls):
        message["tool_calls"] = [
            {
                "id": f"call_{attempt}_{place}",
                "type": "function",
                "function": {"name": name, "arguments": _as_text(arguments)},
            }
            for place, (name, arguments) in enumerate(answer.calls)
        ]
        return message, "tool_calls"
    text = answer.text if isinstance(answer, Verdict) else answer
    for stop in body.get("stop") or []:
        text = text.split(stop)[0]
    return {**message, "content": text}, "stop"


def _as_text(arguments: dict[str, Any] | str) -> str:
    """Return a call's arguments as they are sent."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _deltas(message: dict[str, Any], piece: int) -> list[dict[str, Any]]:
    """Return the pieces of a message: some characters, each call in two halves."""
    deltas: list[dict[str, Any]] = []
    for place, call in enumerate(message.get("tool_calls", [])):
        arguments = call["function"]["arguments"]
        opening = {**call["function"], "arguments": ""}
        half = len(arguments) // 2
        parts = [{**call, "function": opening}]
        parts += [{"function": {"arguments": arguments[:half]}}]
        parts += [{"function": {"arguments": arguments[half:]}}]
        deltas += [{"tool_calls": [{**part, "index": place}]} for part in parts]
    kind = "refusal" if "refusal" in message else "content"
    text = message[kind] or ""
    starts = range(0, len(text), piece)
    return [*deltas, *({kind: text[start : start + piece]} for start in starts)]


@contextmanager
def serve(script: Script, latency: float = 0.0, piece: int = 1) -> Iterator[Server]:
    """Run a server for as long as the block lasts.

    Every answer takes `latency`, and is streamed in pieces of so many characters.
    """
    server = start(script, latency, piece)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def start(script: Script, latency: float = 0.0, piece: int = 1) -> Server:
    """Start a server that lasts until it is shut down, or the process ends."""
    server = Server(script, latency, piece)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@contextmanager
def serve_elsewhere(script: Script, latency: float = 0.0) -> Iterator[str]:
    """Run a server in a process of its own, which takes no turns from this one's loop.

    Its URL is yielded; the script is a function of a module.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(script, latency, there), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("stop")
        process.join(10)


def _serve(script: Script, latency: float, told: Any) -> None:
    """Serve until told to stop."""
    with serve(script, latency) as server:
        told.send(server.url)
        told.recv()
