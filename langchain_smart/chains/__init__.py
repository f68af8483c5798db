"""Chains behind `SmartRunnable`: how each is asked, and what it costs."""

__all__ = ()
