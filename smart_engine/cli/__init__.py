"""The command `smart`."""

__all__ = ()
