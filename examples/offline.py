"""OpenAI, or a stand-in on 127.0.0.1: the examples call either by the same code.

Without `--live`, a small server that speaks OpenAI's chat completions starts, and
OpenAI's own settings in the environment point to it while the example runs. A script in
the example makes up its answers; none is recorded from a real model.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from smart_engine import Price

PRICES = {
    "gpt-5": Price(input=1.25, output=10.0),  # USD per million tokens
    "gpt-5-mini": Price(input=0.25, output=2.0),
    "gpt-5-nano": Price(input=0.05, output=0.40),
}
SLIPS = {"gpt-5": 0.0, "gpt-5-mini": 0.01, "gpt-5-nano": 0.03}
"""The share of conversations in which a model's stand-in errs."""


class ToolCall(NamedTuple):
    """An answer that calls a tool."""

    name: str
    arguments: dict[str, Any]


Script = Callable[[list[dict[str, Any]], bool], str | ToolCall]
"""Returns a model's answer to a conversation, or a wrong one if the flag is True."""


def command_line(doc: str | None, items: int) -> argparse.ArgumentParser:
    """Return the options of every example: how many items, and which models."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=form)
    parser.add_argument("--items", type=int, default=items, help="how many to answer")
    parser.add_argument(
        "--live",
        action="store_true",
        help="call OpenAI; needs OPENAI_API_KEY, costs money",
    )
    return parser


@contextmanager
def openai(*, live: bool, otherwise: Script) -> Iterator[None]:
    """Let OpenAI's classes call OpenAI if `live`, otherwise a script, in this block."""
    if live:
        if not os.environ.get("OPENAI_API_KEY"):
            sys.exit("--live needs OPENAI_API_KEY in the environment")
        yield
        return
    server = _Server(otherwise)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    before = dict(os.environ)
    url = f"http://127.0.0.1:{server.server_port}/v1"
    os.environ.update(
        OPENAI_BASE_URL=url, OPENAI_API_BASE=url
    )  # the latter: LlamaIndex
    os.environ.update(OPENAI_API_KEY="none is needed", no_proxy="127.0.0.1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script


class _Handler(BaseHTTPRequestHandler):
    """Answers chat completions; every other path is a 404."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for its header
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def do_POST(self) -> None:
        """Answer a request."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 200
        if self.path == "/v1/chat/completions":
            reply = _completion(
                request["model"], request["messages"], self.server.script
            )
        else:
            status, reply = 404, {"error": {"message": f"nothing is at {self.path}"}}
        body = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _completion(
    model: str, messages: list[dict[str, Any]], script: Script
) -> dict[str, Any]:
    """Return a model's answer to a conversation in OpenAI's format."""
    prompt = json.dumps([message["content"] for message in messages])
    draw = random.Random(f"{model}: {prompt}").random()  # noqa: S311 - nothing secret
    answer = script(messages, draw < SLIPS[model])
    message: dict[str, Any] = {"role": "assistant", "content": None}
    end = "stop"
    if isinstance(answer, ToolCall):
        text, end = json.dumps(answer.arguments), "tool_calls"
        call = {"name": answer.name, "arguments": text}
        message["tool_calls"] = [
            {"id": f"call_{len(messages)}", "type": "function", "function": call}
        ]
    else:
        message["content"] = text = answer
    # About four characters a token, as in English.
    used = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4 + 1}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": end}],
        "usage": {**used, "total_tokens": sum(used.values())},
    }
