"""The one room with threads, asyncio and clocks; it decides nothing."""

__all__ = ()
