"""How equivalences of the same name differ: by their functions, mostly.

A function is known by its module, its name and its code, with its closure and defaults;
what it calls is not looked at. An object that is neither plain data nor a rule is known
by its class, and within one process by itself.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

from smart_engine.equivalence.rule import Rule

__all__ = ["Identity", "identity"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))


class Identity(NamedTuple):
    """Differs between equivalences that differ.

    Attributes:
        mark: A short hash that is the same in every process.
        objects: Ids of objects that only this process can tell apart.
    """

    mark: str
    objects: tuple[int, ...]


def identity(rule: Any) -> Identity:
    """Return the identity of an equivalence, or of any other setting.

    Example:
        ```python
        from smart_engine.equivalence import Judged, Normalized


        def near(margin):
            return Judged(lambda left, right: abs(left - right) < margin)


        assert identity(near(0.1)) == identity(near(0.1)) != identity(near(0.2))
        assert identity(Normalized()) == identity(Normalized())
        ```
    """
    reader = _Reader()
    mark = hashlib.sha256(reader.read(rule).encode()).hexdigest()[:12]
    return Identity(mark, tuple(reader.objects))


class _Reader:
    """Reads an object down to plain data."""

    def __init__(self) -> None:
        self.objects: list[int] = []
        self._parents: list[int] = []

    def read(self, value: Any) -> str:
        """Return a text that differs between values that differ."""
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__} {value!r}"
        if id(value) in self._parents:  # it holds itself
            return "itself"
        self._parents.append(id(value))
        try:
            return self._read_compound(value)
        finally:
            self._parents.pop()

    def _read_compound(self, value: Any) -> str:
        if isinstance(value, type | BuiltinFunctionType):
            return f"{value.__module__}.{value.__qualname__}"
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        for kind, parts_of in _PARTS_BY_TYPE:
            if isinstance(value, kind):
                return f"{name} {self._read_all(parts_of(value))}"
        if is_dataclass(value):
            compared = [getattr(value, f.name) for f in fields(value) if f.compare]
            return f"{name} {self._read_all(compared)}"
        if isinstance(value, Rule):
            return f"{name} {value.name} {self._read_all(vars(value).items())}"
        self.objects.append(id(value))
        return name

    def _read_all(self, values: Iterable[Any]) -> str:
        return repr([self.read(value) for value in values])


def _function_parts(function: FunctionType) -> tuple[Any, ...]:
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    names = function.__module__, function.__qualname__, function.__code__
    return *names, function.__defaults__, function.__kwdefaults__, closure


_PARTS_BY_TYPE: tuple[tuple[Any, Callable[[Any], Iterable[Any]]], ...] = (
    (FunctionType, _function_parts),
    (CodeType, lambda code: (code.co_code, code.co_names, code.co_consts)),
    (MethodType, lambda method: (method.__func__, method.__self__)),
    (functools.partial, lambda call: (call.func, call.args, call.keywords)),
    (re.Pattern, lambda pattern: (pattern.pattern, pattern.flags)),
    (list | tuple, lambda values: values),
    (set | frozenset, lambda values: sorted(values, key=repr)),
    (Mapping, lambda table: table.items()),
)
"""What an object is made of, by its type."""
