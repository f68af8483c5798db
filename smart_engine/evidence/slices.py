"""Slices: parts of a batch, such as tenants, each of which keeps the share by itself.

A batch without slices is one. Nothing here touches a promise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from smart_engine.errors import InvalidInputError
from smart_engine.evidence.tails import BoolArray, FloatArray, IntArray
from smart_engine.guarantee import Guarantee

__all__ = ["Slices", "name_of_slice"]


class Slices(NamedTuple):
    """To which slice each item belongs.

    Attributes:
        names: The slices; a single None for a batch without any.
        number: Per item, the place of its slice among the names.
    """

    names: tuple[str | None, ...]
    number: IntArray

    @classmethod
    def read(cls, given: Sequence[str] | None, n_items: int) -> Slices:
        """Return the slices of a batch, from the name of each item's slice.

        Raises:
            InvalidInputError: If there is not one name per item.
        """
        if given is None:
            return cls((None,), np.zeros(n_items, np.int8))
        if isinstance(given, str) or len(given) != n_items:
            hint = f"give the name of a slice for each of {n_items} items"
            raise InvalidInputError("slices", given, hint)
        places: dict[str, int] = {}
        number = [
            places.setdefault(name_of_slice(name, item), len(places))
            for item, name in enumerate(given)
        ]
        return cls(tuple(places), np.array(number, np.int64))

    def items(self) -> list[IntArray]:
        """Return each slice's items."""
        order = np.argsort(self.number, kind="stable")
        ends = np.cumsum(self.sizes)[:-1]
        return np.split(order, ends) if self.names else []

    @property
    def sizes(self) -> IntArray:
        """Each slice's number of items."""
        return np.bincount(self.number, minlength=len(self.names))

    def promising(self, guarantee: Guarantee, most: float) -> BoolArray:
        """Per slice, whether an audit may need less than a share of its items.

        An audit that finds no error is the cheapest there is. Slices too small for one
        leave their part of the level to the others.

        Args:
            guarantee: What is promised of each slice.
            most: The share of a slice from which on the reference alone is cheaper.
        """
        allowed = np.array([guarantee.max_errors(size) for size in self.sizes.tolist()])
        found = np.ones(len(self.names), bool)
        while count := int(found.sum()):
            level = guarantee.alpha / count
            kept = found & (_least_draws(allowed, level) < most)
            if kept.sum() == count:
                break
            found = kept
        return found


def name_of_slice(given: object, item: int) -> str:
    """Return the name of an item's slice.

    Raises:
        InvalidInputError: If it is neither a text nor a number.
    """
    known = not (isinstance(given, float) and math.isnan(given))
    if isinstance(given, str | int | float) and known:
        return str(given)
    hint = f"item {item} is in no slice: each needs one, a text or a number"
    raise InvalidInputError("slices", given, hint)


def _least_draws(allowed: IntArray, level: float) -> FloatArray:
    """Least share of the items to draw where so many errors may stay undetected."""
    return np.asarray(1 - level ** (1 / (allowed + 1.0)), float)
