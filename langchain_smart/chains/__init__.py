"""Chains behind `SmartRunnable`: how each is called, and what it costs."""

__all__ = ()
