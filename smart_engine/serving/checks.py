"""Refuses settings that cannot be used, before anything is spent."""

from __future__ import annotations

from smart_engine.errors import InvalidInputError, check_whole, choose
from smart_engine.money.budget import check_budget
from smart_engine.serving.config import ServingConfig
from smart_engine.serving.sessions import begin_session
from smart_engine.strategies import check_rounds
from smart_engine.warn import warn

__all__ = ["check"]

_PROMISES = ("batch", "task")
_MODES = ("serve", "shadow", "strict")


def check(config: ServingConfig) -> None:
    """Raise unless all of it can be used.

    Raises:
        InvalidInputError: It names the field.
    """
    _check(config)
    for name in config.tasks:
        try:
            _check(config.of(name))
        except InvalidInputError as error:
            field = f"tasks[{name!r}].{error.field}"
            raise InvalidInputError(field, error.value, error.hint) from error
    _warn_of_prices(config)


def _check(config: ServingConfig) -> None:
    if config.mode not in _MODES:
        raise InvalidInputError(
            "mode", config.mode, f"choose one of {', '.join(_MODES)}"
        )
    if config.promise is not None:
        choose("promise", config.promise, dict.fromkeys(_PROMISES))
    if config.promise == "task" and config.strategy not in ("audit", "reference"):
        hint = f"strategy={config.strategy!r} proves each batch by itself: use 'audit'"
        raise InvalidInputError("promise", config.promise, hint)
    if config.promise == "task" and config.batches_alone:
        hint = (
            "jobs that are still to come may have none of a label or slice, or all "
            "of it: recall=, precision= and slices= hold for each batch by itself, "
            "promise='batch'"
        )
        raise InvalidInputError("promise", config.promise, hint)
    if config.mode == "shadow" and config.batches_alone:
        hint = (
            "items are answered one by one, as a stream: recall=, precision= and "
            "slices= are promises about whole batches, leave them out"
        )
        raise InvalidInputError("mode", config.mode, hint)
    check_budget(config.budget_usd)
    if config.budget_usd is not None and getattr(config.rule, "costs", False):
        hint = (
            f"what {config.rule.name} will spend cannot be set aside beforehand, so "
            "that no budget would hold: leave budget_usd out, compare by a rule "
            "that costs nothing, or give a local model Price.free()"
        )
        raise InvalidInputError("budget_usd", config.budget_usd, hint)
    if config.mode == "strict" and config.budget_usd is None:
        hint = "set budget_usd: strict says what happens where the budget ends"
        raise InvalidInputError("mode", config.mode, hint)
    check_whole("max_concurrency", config.max_concurrency, 1)
    by_task = config.promise == "task"
    check_rounds(config.max_rounds, config.strategy, config.guarantee, by_task=by_task)
    begin_session(
        config, 0, config.rule, None, slices=None if config.slices is None else ()
    )


def _warn_of_prices(config: ServingConfig) -> None:
    """Name the candidates that cannot save anything by their prices."""
    unit, *costs = config.costs or (None,)
    for name, cost in zip(config.models[1:], costs, strict=False):
        if unit and cost is not None and cost >= unit:
            warn(
                f"{name} is priced no lower than the reference {config.models[0]}, "
                "so it will not be asked: remove it, or correct prices="
            )
