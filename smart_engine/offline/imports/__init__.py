"""Answers from the logs that people have: one reader a format; nothing is sent."""

__all__ = ()
