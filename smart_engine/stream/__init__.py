"""Streams: items one by one, under a promise that holds after every answer.

`guard` alone carries the promise, with the mathematics of `bound`; all else decides
what is cheap, never what is true.
"""

__all__ = ()
