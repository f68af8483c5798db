"""A report: what it says is in `content`; each other file shows one form of it."""

__all__ = ()
