"""The records in the bytes of a log: JSON, JSON by lines, CSV or TSV, gzipped or not.

What cannot be read is told and left out; all before and after it is read.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

from smart_engine.offline.imports.logged import Record, Skipped

__all__ = ["records"]

_WRAPPERS = ("data", "runs", "observations", "results", "items", "logs")
"""Where an API's reply has its list."""

_CUT = "the file is cut off here"


def records(content: bytes) -> Iterator[tuple[str, Record | Skipped]]:
    """Yield each record of a log, or why there is none, with its place.

    Example:
        ```python
        (first, broken) = records(b"[{}, {")
        assert first == ("record 1", {})
        assert broken == ("record 2", Skipped("the file is cut off here"))
        ```
    """
    text, cut = _unzipped(content)
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        decoded = text[: error.start].decode("utf-8-sig")
        cut = f"this is no UTF-8, from byte {error.start} on"
    begin = decoded.lstrip()[:1]
    if begin == "[":
        yield from _array(decoded)
    elif begin == "{":
        yield from _objects(decoded)
    elif begin:
        yield from _cells(decoded)
    if cut:
        yield "end", Skipped(cut)


def _unzipped(content: bytes) -> tuple[bytes, str]:
    """Return what was zipped as far as it can be read, and what is wrong with it."""
    if not content.startswith(b"\x1f\x8b"):
        return content, ""
    unzip, found = zlib.decompressobj(wbits=31), b""
    try:
        while content:
            found += unzip.decompress(content)
            content = unzip.unused_data  # another member, as of files put together
            if unzip.eof:
                unzip = zlib.decompressobj(wbits=31)
            else:
                return found, _CUT
    except zlib.error:
        return found, _CUT
    return found, ""


def _array(text: str) -> Iterator[tuple[str, Record | Skipped]]:
    """Yield the members of one array, as far as it goes."""
    decoder, place, number = json.JSONDecoder(), text.index("[") + 1, 0
    beginning = re.compile(r"[^\s,]")
    while begin := beginning.search(text, place):
        place = begin.start()
        if text[place] == "]":
            return
        number += 1
        try:
            member, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            yield f"record {number}", Skipped(_CUT)
            return
        yield from _records(f"record {number}", member)
    yield "end", Skipped(_CUT)


def _objects(text: str) -> Iterator[tuple[str, Record | Skipped]]:
    """Yield one object, or an object a line."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        whole = None
    if whole is not None:
        yield from _records("record 1", whole)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            member = json.loads(line)
        except (ValueError, RecursionError):
            yield f"line {number}", Skipped("this is no JSON, or cut off")
            continue
        yield from _records(f"line {number}", member)


def _records(place: str, member: Any) -> Iterator[tuple[str, Record | Skipped]]:
    """Yield a member, or those of the list that an API's reply has."""
    if not isinstance(member, dict):
        yield place, Skipped("this is no object, {…}")
        return
    listed = [name for name in _WRAPPERS if isinstance(member.get(name), list)]
    if len(listed) == 1 and all(isinstance(each, dict) for each in member[listed[0]]):
        for number, each in enumerate(member[listed[0]], 1):
            yield f"{place}, {listed[0]} {number}", each
        return
    yield place, member


def _cells(text: str) -> Iterator[tuple[str, Record | Skipped]]:
    """Yield each row below the header."""
    csv.field_size_limit(2**31 - 1)
    head = text.split("\n", 1)[0]
    separator = "\t" if head.count("\t") > head.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: list[str] = []
    number = 1
    try:
        for cells in reader:
            if cells and not columns:
                columns = cells
            elif cells and len(cells) != len(columns):
                problem = f"{len(cells)} cells under {len(columns)} columns"
                yield f"line {number}", Skipped(problem)
            elif cells:
                yield f"line {number}", dict(zip(columns, cells, strict=True))
            number = reader.line_num + 1
    except csv.Error:
        yield f"line {number}", Skipped(_CUT)
