"""Prices, the ledger and budgets, in USD."""

__all__ = ()
