"""A provider of our own with batches, in OpenAI's form: `/v1/files` and `/v1/batches`.

It answers single requests as `loopback.Server` does, and those in batches by the same
script, with a bill of their own (`batched`). Each look at a batch takes it one state
further. `Plan` says what goes wrong. Results come shuffled; what was not answered when
a batch expired or was cancelled is not billed. `calls` has every request to this API.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopback import Fault, Provider, Reply, Script, Server, _Handler

STATES = ("validating", "in_progress", "finalizing")
LIMITS = {"rows": 50_000, "size": 200_000_000}


@dataclass
class Plan:
    """What happens to batches.

    Attributes:
        looks: States that a batch passes until it ends, one a look; at an "unknown"
            one, the provider does not find it.
        end: Given a batch's number, from 0, how it ends.
        answered: Share that is answered of one that expires or is cancelled.
        missing: Whether nothing at all is said of a request; given a row's body.
        refuse: Given the number of a request to create, from 0, what goes wrong.
        lose: Numbers of requests to create that are done, and never answered.
        full: Given a batch's rows, whether too much is waiting already.
        listed: Whether the list shows a batch of that number by now.
        deleted: Numbers of batches that are deleted once they have ended.
        deleted_files: Numbers of batches → the key of the file that is deleted then.
    """

    looks: tuple[str, ...] = STATES
    end: Callable[[int], str] = lambda number: "completed"
    answered: float = 0.5
    missing: Callable[[dict[str, Any]], bool] = lambda body: False
    refuse: Callable[[int], Fault | None] = lambda number: None
    lose: frozenset[int] = frozenset()
    full: Callable[[int], bool] = lambda rows: False
    listed: Callable[[int], bool] = lambda number: True
    deleted: frozenset[int] = frozenset()
    deleted_files: Mapping[int, str] = field(default_factory=dict)


@dataclass
class Batch:
    """A batch as the provider has it."""

    number: int
    rows: list[dict[str, Any]]
    seen: dict[str, Any]
    looks: list[str]
    owner: str
    ended: bool = False


@dataclass
class Batches:
    """Files and batches of a provider.

    `on_call` is told of each request, before and after it is worked on. `owner` is the
    key of the one that is worked on: other keys' batches are not shown to it.
    """

    batched: Provider
    plan: Plan
    limits: dict[str, int]
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    creations: int = 0
    owner: str = ""
    on_call: Callable[[str, bool], None] = lambda call, done: None
    lock: Any = field(default_factory=threading.RLock)

    # -- files -------------------------------------------------------------------

    def add(self, name: str, content: bytes) -> dict[str, Any]:
        file = f"file-{len(self.files)}"
        self.files[file] = name, content
        return self.described(file)

    def described(self, file: str) -> dict[str, Any]:
        name, content = self.files[file]
        about = {"id": file, "object": "file", "created_at": 0, "purpose": "batch"}
        return {**about, "filename": name, "bytes": len(content), "status": "processed"}

    # -- batches -----------------------------------------------------------------

    def create(self, asked: dict[str, Any]) -> Reply:
        number, self.creations = self.creations, self.creations + 1
        if fault := self.plan.refuse(number):
            return refused(fault.status, fault.kind, fault.headers)
        if asked["input_file_id"] not in self.files:
            return refused(404, "no such file")
        _, content = self.files[asked["input_file_id"]]
        rows, errors = self.read(content, asked["endpoint"])
        name = f"batch_{len(self.batches)}"
        seen = {"id": name, "object": "batch", "created_at": len(self.batches)}
        seen |= {"endpoint": asked["endpoint"], "status": "validating"}
        seen |= {"input_file_id": asked["input_file_id"], "completion_window": "24h"}
        seen |= {"metadata": asked.get("metadata"), "output_file_id": None}
        seen |= {"error_file_id": None, "errors": None, "request_counts": None}
        looks = list(self.plan.looks)
        batch = Batch(len(self.batches), rows, seen, looks, self.owner)
        self.batches[name] = batch
        if self.plan.full(len(rows)):
            errors = [{"code": "token_limit_exceeded", "message": "too much waits"}]
        if errors:
            seen["errors"] = {"object": "list", "data": errors}
            batch.looks = []
        if number in self.plan.lose:
            return Reply([], fault="reset")
        return sent(seen)

    def read(
        self, content: bytes, endpoint: str
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the rows of a file, and what is wrong with it."""
        rows, errors = [], []
        for number, line in enumerate(content.decode().splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError:
                errors.append({"code": "invalid_json_line", "line": number})
                continue
            if row["url"] != endpoint or row["method"] != "POST":
                errors.append({"code": "mismatched_endpoint", "line": number})
            rows.append(row)
        wrong = {
            "duplicate_custom_id": len({r["custom_id"] for r in rows}) < len(rows),
            "mismatched_model": len({r["body"].get("model") for r in rows}) > 1,
            "streaming": any(r["body"].get("stream") for r in rows),
            "too_many_rows": len(rows) > self.limits["rows"],
            "too_large": len(content) > self.limits["size"],
            "empty_file": not rows,
        }
        errors += [{"code": code} for code, found in wrong.items() if found]
        return rows, [{"message": error["code"], **error} for error in errors]

    def look(self, name: str) -> Reply:
        batch = self.batches[name]
        if not batch.ended:
            if batch.looks:
                state = batch.looks.pop(0)
                if state == "unknown":
                    return refused(404, f"no such batch: {name}")
                batch.seen["status"] = state
            else:
                self.end(batch)
        if batch.ended and batch.number in self.plan.deleted:
            return refused(404, f"no such batch: {name}")
        return sent(batch.seen)

    def cancel(self, name: str) -> Reply:
        batch = self.batches[name]
        if not batch.ended:
            batch.seen["status"], batch.looks = "cancelling", []
            self.end(batch, "cancelled")
        return sent(batch.seen)

    def end(self, batch: Batch, how: str | None = None) -> None:
        """Answer a batch's requests, or some of them."""
        batch.ended = True
        how = how or ("failed" if batch.seen["errors"] else self.plan.end(batch.number))
        batch.seen["status"] = how
        if how == "failed":
            data = [{"code": "broken", "message": "the provider broke"}]
            batch.seen["errors"] = batch.seen["errors"] or {"data": data}
            return
        whole = how == "completed"
        kept = len(batch.rows) if whole else int(len(batch.rows) * self.plan.answered)
        answers, failures = [], []
        for place, row in enumerate(batch.rows):
            if self.plan.missing(row["body"]):
                continue
            line = {"id": f"batch_req_{place}", "custom_id": row["custom_id"]}
            if place >= kept:
                error = {"code": f"batch_{how}", "message": f"the batch {how}"}
                failures.append({**line, "response": None, "error": error})
                continue
            reply = self.batched.reply(row["body"])
            body = json.loads(b"".join(reply.sent))
            response = {"status_code": reply.status, "request_id": "r", "body": body}
            into = answers if reply.status < 400 else failures
            into.append({**line, "response": response, "error": None})
        random.Random(batch.number).shuffle(answers)
        for key, lines in (("output_file_id", answers), ("error_file_id", failures)):
            if lines:
                content = "".join(json.dumps(line) + "\n" for line in lines).encode()
                batch.seen[key] = self.add(f"{key}.jsonl", content)["id"]
        if file := self.plan.deleted_files.get(batch.number):
            del self.files[batch.seen[file]]
        done = {"total": len(batch.rows), "completed": len(answers)}
        batch.seen["request_counts"] = {**done, "failed": len(failures)}

    def listed(self, query: dict[str, list[str]]) -> Reply:
        own = [each for each in self.batches.values() if each.owner == self.owner]
        shown = [each for each in own if self.plan.listed(each.number)]
        newest = [batch.seen for batch in reversed(shown)]
        after = query.get("after", [None])[0]
        names = [seen["id"] for seen in newest]
        start = names.index(after) + 1 if after else 0
        end = start + int(query.get("limit", ["20"])[0])
        page = newest[start:end]
        return sent({"object": "list", "data": page, "has_more": end < len(newest)})

    # -- HTTP --------------------------------------------------------------------

    def answer(
        self, method: str, path: str, kind: str, body: bytes, owner: str
    ) -> Reply:
        """Return what is sent to a request to this API."""
        call = f"{method} {urlsplit(path).path}"
        self.on_call(call, False)
        with self.lock:
            self.calls.append(call)
            self.owner = owner
            reply = self.reply(method, path, kind, body)
        self.on_call(call, True)
        return reply

    def reply(self, method: str, path: str, kind: str, body: bytes) -> Reply:
        url = urlsplit(path)
        parts = url.path.removeprefix("/v1/").split("/")
        match method, *parts:
            case "POST", "files":
                return sent(self.add(*form_file(kind, body)))
            case "GET", "files", file, "content" if file in self.files:
                return Reply([self.files[file][1]])
            case "POST", "batches":
                return self.create(json.loads(body))
            case "GET", "batches":
                return self.listed(parse_qs(url.query))
            case _, "batches", name, *_ if self.batches[name].owner != self.owner:
                return refused(404, f"no such batch: {name}")
            case "GET", "batches", name:
                return self.look(name)
            case "POST", "batches", name, "cancel":
                return self.cancel(name)
        return refused(404, f"no such path: {path}")


def sent(payload: dict[str, Any]) -> Reply:
    return Reply([json.dumps(payload).encode()])


def refused(status: int, message: str, headers: dict[str, str] | None = None) -> Reply:
    error = {"error": {"message": message, "type": "invalid_request_error"}}
    return Reply([json.dumps(error).encode()], status, headers or {})


def form_file(kind: str, body: bytes) -> tuple[str, bytes]:
    """Return the file's name and content in a form."""
    mark = kind.partition("boundary=")[2].encode()
    for part in body.split(b"--" + mark):
        head, _, content = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            name = head.split(b'filename="')[1].split(b'"')[0]
            return name.decode(), content.removesuffix(b"\r\n")
    raise ValueError("a form without a file")


class BatchServer(Server):
    """A provider on a port of 127.0.0.1 that has batches, too."""

    def __init__(self, script: Script, plan: Plan, limits: dict[str, int]) -> None:
        Provider.__init__(self, script)
        self.batched = Provider(script)
        self.api = Batches(self.batched, plan, limits)
        ThreadingHTTPServer.__init__(self, ("127.0.0.1", 0), _BatchHandler)

    def reply(self, body: dict[str, Any]) -> Reply:
        """Answer a live request."""
        self.api.on_call("POST /v1/chat", False)
        reply = super().reply(body)
        self.api.on_call("POST /v1/chat", True)
        return reply


class _BatchHandler(_Handler, BaseHTTPRequestHandler):
    server: BatchServer

    def do_POST(self) -> None:
        if urlsplit(self.path).path == "/v1/chat/completions":
            return super().do_POST()
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        kind = self.headers["Content-Type"] or ""
        self._answer("POST", kind, body)
        return None

    def do_GET(self) -> None:
        self._answer("GET", "", b"")

    def _answer(self, method: str, kind: str, body: bytes) -> None:
        owner = self.headers["Authorization"] or ""
        self._send(self.server.api.answer(method, self.path, kind, body, owner))


@contextmanager
def serve_batches(
    script: Script, plan: Plan | None = None, **limits: int
) -> Iterator[BatchServer]:
    """Run a server for as long as the block lasts."""
    server = BatchServer(script, plan or Plan(), {**LIMITS, **limits})
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
