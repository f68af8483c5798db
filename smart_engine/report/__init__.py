"""Reports: `content` says what a report contains; each other file shows one form."""

__all__ = ()
