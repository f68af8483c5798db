"""An OpenAI-compatible server of our own on 127.0.0.1, which keeps a bill.

`script(model, text, attempt)` decides each answer: a text, or a `Fault`. Everything the
server answered with a usage is on the bill, by model.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What goes wrong instead of an answer."""

    kind: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)


Script = Callable[[str, str, int], "str | Fault"]


class Server(ThreadingHTTPServer):
    """Answers chat completions; counts what it bills."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.lock = threading.Lock()
        self.requests: Counter[str] = Counter()
        self.input_tokens: Counter[str] = Counter()
        self.output_tokens: Counter[str] = Counter()
        self.attempts: Counter[tuple[str, str]] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep broken connections out of the test output."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        """Keep requests out of the test output."""

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(size))
        model, text = body["model"], body["messages"][-1]["content"]
        with self.server.lock:
            self.server.requests[model] += 1
            self.server.attempts[model, text] += 1
            attempt = self.server.attempts[model, text]
        answer = self.server.script(model, text, attempt)
        if isinstance(answer, Fault):
            return self._fail(answer)
        used = {"prompt_tokens": len(text), "completion_tokens": len(answer)}
        with self.server.lock:
            self.server.input_tokens[model] += used["prompt_tokens"]
            self.server.output_tokens[model] += used["completion_tokens"]
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        payload = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [choice],
            "usage": {**used, "total_tokens": sum(used.values())},
        }
        return self._send(200, json.dumps(payload).encode())

    def _fail(self, fault: Fault) -> None:
        if fault.kind == "reset":
            self.close_connection = True
            return self.connection.close()
        if fault.kind == "malformed":
            return self._send(200, b'{"id": "chatcmpl-1", "choices": [')
        error = {"error": {"message": fault.kind, "type": "server_error"}}
        return self._send(fault.status, json.dumps(error).encode(), fault.headers)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(script: Script) -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    server = Server(script)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
