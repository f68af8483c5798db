"""Without asking models: recorded answers, replay, and estimates from a sample."""

__all__ = ()
