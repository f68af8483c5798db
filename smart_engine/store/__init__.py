"""The only database."""

__all__ = ()
