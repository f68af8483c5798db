"""A provider of our own in Anthropic's form: messages, and message batches.

It answers by the same scripts as `loopback`, with the same bill for single messages,
and one for those in batches (`batched`). `Plan` says what goes wrong, as in
`batch_loopback`.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from batch_loopback import Batch, Plan, sent
from loopback import Provider, Reply, Script, Server, _Handler

ERRORS = {
    400: "invalid_request_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
KINDS = ("processing", "succeeded", "errored", "canceled", "expired")


def message(reply: Reply) -> dict[str, Any]:
    """Return a reply of OpenAI's form as a message, or as an error."""
    told = json.loads(b"".join(reply.sent))
    if reply.status >= 400:
        kind = ERRORS.get(reply.status, "api_error")
        error = {"type": kind, "message": told["error"]["message"]}
        return {"type": "error", "error": error}
    (choice,) = told["choices"]
    said = choice["message"]
    content = [
        {
            "type": "tool_use",
            "id": call["id"],
            "name": call["function"]["name"],
            "input": json.loads(call["function"]["arguments"]),
        }
        for call in said.get("tool_calls", [])
    ]
    if said["content"] is not None:
        content = [{"type": "text", "text": said["content"]}]
    usage = {
        "input_tokens": told["usage"]["prompt_tokens"],
        "output_tokens": told["usage"]["completion_tokens"],
    }
    head = {"id": "msg_1", "type": "message", "role": "assistant"}
    head |= {"model": told["model"], "content": content, "usage": usage}
    why = "tool_use" if "tool_calls" in said else "end_turn"
    return {**head, "stop_reason": why, "stop_sequence": None}


def missing(what: str) -> Reply:
    error = {"type": "not_found_error", "message": what}
    return Reply([json.dumps({"type": "error", "error": error}).encode()], 404)


@dataclass
class MessageBatches:
    """Message batches of a provider.

    `on_call` is told of each request, before and after it is worked on. `owner` is the
    key of the one that is worked on: other keys' batches are not shown to it.
    """

    batched: Provider
    plan: Plan
    url: str = ""
    batches: dict[str, Batch] = field(default_factory=dict)
    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    betas: list[str] = field(default_factory=list)
    creations: int = 0
    owner: str = ""
    on_call: Callable[[str, bool], None] = lambda call, done: None
    lock: Any = field(default_factory=threading.RLock)

    def create(self, rows: list[dict[str, Any]]) -> Reply:
        number, self.creations = self.creations, self.creations + 1
        if fault := self.plan.refuse(number):
            error = {"type": ERRORS.get(fault.status, "api_error"), "message": "no"}
            body = json.dumps({"type": "error", "error": error}).encode()
            return Reply([body], fault.status)
        names = [row["custom_id"] for row in rows]
        assert len(set(names)) == len(names)
        assert not any(row["params"].get("stream") for row in rows)
        name, now = f"msgbatch_{len(self.batches)}", time.time()
        seen = {"id": name, "type": "message_batch", "processing_status": "in_progress"}
        seen |= {"created_at": datetime.fromtimestamp(now, UTC).isoformat()}
        seen |= {"expires_at": datetime.fromtimestamp(now + 86_400, UTC).isoformat()}
        seen |= {"ended_at": None, "archived_at": None, "cancel_initiated_at": None}
        seen |= {"results_url": None, "request_counts": self.counts(len(rows))}
        looks = list(self.plan.looks)
        batch = Batch(len(self.batches), rows, seen, looks, self.owner)
        self.batches[name] = batch
        return Reply([], fault="reset") if number in self.plan.lose else sent(seen)

    def counts(self, processing: int = 0, **ended: int) -> dict[str, int]:
        return {**dict.fromkeys(KINDS, 0), "processing": processing, **ended}

    def look(self, name: str) -> Reply:
        batch = self.batches[name]
        if not batch.ended:
            if batch.looks:
                batch.looks.pop(0)
            else:
                self.end(batch, self.plan.end(batch.number))
        if batch.ended and batch.number in self.plan.deleted:
            return missing(f"no such batch: {name}")
        return sent(batch.seen)

    def cancel(self, name: str) -> Reply:
        if not self.batches[name].ended:
            self.end(self.batches[name], "canceled")
        return sent(self.batches[name].seen)

    def end(self, batch: Batch, how: str) -> None:
        batch.ended, kept = True, len(batch.rows)
        if how != "completed":
            kept = int(kept * self.plan.answered)
        lines, counts = [], self.counts()
        for place, row in enumerate(batch.rows):
            result: dict[str, Any] = {"type": how}
            if place < kept:
                reply = self.batched.reply(row["params"])
                if reply.status < 400:
                    result = {"type": "succeeded", "message": message(reply)}
                else:
                    result = {"type": "errored", "error": message(reply)}
            counts[result["type"]] += 1
            lines.append({"custom_id": row["custom_id"], "result": result})
        random.Random(batch.number).shuffle(lines)
        name = batch.seen["id"]
        self.results[name] = lines
        url = f"{self.url}/v1/messages/batches/{name}/results"
        ended = {"processing_status": "ended", "results_url": url}
        batch.seen |= {**ended, "request_counts": counts}
        batch.seen["ended_at"] = batch.seen["created_at"]

    def listed(self, query: dict[str, list[str]]) -> Reply:
        for name in self.batches:  # time passes, whatever is looked at
            self.look(name)
        own = [each for each in self.batches.values() if each.owner == self.owner]
        newest = [batch.seen for batch in reversed(own)]
        names = [seen["id"] for seen in newest]
        after = query.get("after_id", [None])[0]
        start = names.index(after) + 1 if after else 0
        end = start + int(query.get("limit", ["20"])[0])
        page, more = newest[start:end], end < len(newest)
        ids = {"first_id": None, "last_id": page[-1]["id"] if page else None}
        return sent({"data": page, "has_more": more, **ids})

    def answer(
        self, method: str, path: str, beta: str, body: bytes, owner: str
    ) -> Reply:
        call = f"{method} {urlsplit(path).path}"
        self.on_call(call, False)
        with self.lock:
            self.owner = owner
            reply = self.reply(method, path, beta, body)
        self.on_call(call, True)
        return reply

    def reply(self, method: str, path: str, beta: str, body: bytes) -> Reply:
        url = urlsplit(path)
        parts = url.path.removeprefix("/v1/messages/").split("/")
        match method, *parts:
            case "POST", "batches":
                self.betas.append(beta)
                return self.create(json.loads(body)["requests"])
            case "GET", "batches":
                return self.listed(parse_qs(url.query))
            case _, "batches", name, *_ if self.batches[name].owner != self.owner:
                return missing(f"no such batch: {name}")
            case "GET", "batches", name:
                return self.look(name)
            case "GET", "batches", name, "results":
                lines = (json.dumps(line) + "\n" for line in self.results[name])
                return Reply(["".join(lines).encode()])
            case "POST", "batches", name, "cancel":
                return self.cancel(name)
        return missing(path)


class AnthropicServer(Server):
    """A provider on a port of 127.0.0.1."""

    def __init__(self, script: Script, plan: Plan) -> None:
        Provider.__init__(self, script)
        self.batched = Provider(script)
        self.api = MessageBatches(self.batched, plan)
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), _AnthropicHandler)
        self.api.url = self.url

    @property
    def url(self) -> str:
        return super().url.removesuffix("/v1")


class _AnthropicHandler(_Handler, BaseHTTPRequestHandler):
    server: AnthropicServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if urlsplit(self.path).path == "/v1/messages":
            reply = self.server.reply(json.loads(body))
            told = json.dumps(message(reply)).encode()
            return self._send(Reply([told], reply.status))
        beta = self.headers["anthropic-beta"] or ""
        self._answer("POST", beta, body)
        return None

    def do_GET(self) -> None:
        self._answer("GET", "", b"")

    def _answer(self, method: str, beta: str, body: bytes) -> None:
        owner = self.headers["X-Api-Key"] or self.headers["Authorization"] or ""
        self._send(self.server.api.answer(method, self.path, beta, body, owner))


@contextmanager
def serve_anthropic(
    script: Script, plan: Plan | None = None
) -> Iterator[AnthropicServer]:
    """Run a server for as long as the block lasts."""
    server = AnthropicServer(script, plan or Plan())
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
