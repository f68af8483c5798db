"""An OpenAI-compatible server of our own on 127.0.0.1, which keeps a bill.

`script(model, text, attempt)` decides each answer: a text, a `Verdict` with logprobs,
`Calls` of tools, a `Refusal`, an `Odd` answer, one that is `Broken` off, or a `Fault`;
`text` is the last message's, and carries the whole request in `text.body`. Everything
the server answered with a usage that can be true is on the bill, by model. It streams
to who asks for a stream, stops where it is told to, and a gauge says how many requests
it worked on at once.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What goes wrong instead of an answer."""

    kind: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    code: str | None = None


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


Answer = str | Verdict | Calls | Refusal | Odd | Broken
Script = Callable[[str, Any, int], "Answer | Fault"]


class Server(ThreadingHTTPServer):
    """Answers chat completions; counts what it bills."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script: Script, latency: float = 0.0, piece: int = 1) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
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
            self._complete(body)

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

    def _complete(self, body: dict[str, Any]) -> None:
        model, text = body["model"], Asked.of(body)
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.requests[model] += 1
            self.server.attempts[model, text] += 1
            attempt = self.server.attempts[model, text]
        answer = self.server.script(model, text, attempt)
        if isinstance(answer, Fault):
            return self._fail(answer)
        odd = answer if isinstance(answer, Odd) else None
        broken = answer if isinstance(answer, Broken) else None
        if isinstance(answer, Odd | Broken):
            answer = answer.answer
        message, finish = _message(answer, body, attempt)
        finish = odd.finish or finish if odd else finish
        usage = self._billed(model, text, message, odd, broken)
        head = {"id": "chatcmpl-1", "created": 0, "model": model}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        if isinstance(answer, Verdict) and body.get("logprobs"):
            logs = [{"token": "t", "bytes": [], "logprob": p} for p in answer.logprobs]
            choice["logprobs"] = {"content": logs, "refusal": None}
        if body.get("stream"):
            wanted = (body.get("stream_options") or {}).get("include_usage")
            lines = self._events(head, choice, usage if wanted else None)
            kind = "text/event-stream"
        else:
            payload = {**head, "object": "chat.completion", "choices": [choice]}
            if usage is not None:
                payload["usage"] = usage
            lines, kind = [json.dumps(payload).encode()], "application/json"
        return self._send(200, lines, {"Content-Type": kind}, broken)

    def _billed(
        self,
        model: str,
        text: str,
        message: dict[str, Any],
        odd: Odd | None,
        broken: Broken | None,
    ) -> dict[str, Any] | None:
        """Return the usage that is told; on the bill if it arrives and is true."""
        said = json.dumps(message["tool_calls"]) if "tool_calls" in message else ""
        said += message.get("refusal") or message["content"] or ""
        used = {"prompt_tokens": len(text) or 1, "completion_tokens": len(said)}
        usage = {**used, "total_tokens": sum(used.values())}
        if odd and odd.usage != {}:
            return None if odd.usage is None else {**usage, **odd.usage}
        if not broken:
            with self.server.lock:
                self.server.input_tokens[model] += used["prompt_tokens"]
                self.server.output_tokens[model] += used["completion_tokens"]
        return usage

    def _events(
        self,
        head: dict[str, Any],
        choice: dict[str, Any],
        usage: dict[str, Any] | None,
    ) -> list[bytes]:
        """Return a message as events: its role, piece by piece, the end, the usage."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += _deltas(choice["message"], self.server.piece)
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

    def _fail(self, fault: Fault) -> None:
        if fault.kind == "reset":
            self.close_connection = True
            return self.connection.close()
        if fault.kind == "malformed":
            return self._send(200, [b'{"id": "chatcmpl-1", "choices": ['])
        if fault.kind == "silent":
            return self._stall()
        error = {"message": fault.kind, "type": "server_error", "code": fault.code}
        body = json.dumps({"error": error}).encode()
        return self._send(fault.status, [body], fault.headers)

    def _send(
        self,
        status: int,
        parts: list[bytes],
        headers: dict[str, str] | None = None,
        broken: Broken | None = None,
    ) -> None:
        """Send a body, or half of its parts: of one part, half of its bytes."""
        body = b"".join(parts)
        self.send_response(status)
        given = {"Content-Type": "application/json", **(headers or {})}
        for name, value in {**given, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if broken is None:
            self.wfile.write(body)
            return
        half = parts[: len(parts) // 2] or [body[: len(body) // 2]]
        self.wfile.write(b"".join(half))
        self.close_connection = True
        if broken.stalls:
            self._stall()

    def _stall(self) -> None:
        """Say nothing until the other side gives up, or half a minute has passed."""
        self.close_connection = True
        self.connection.settimeout(30)
        with suppress(OSError):
            self.rfile.read(1)


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
