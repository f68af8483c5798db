"""One promise over all jobs of a task, kept at the end of each.

`guard` alone carries the promise, with the mathematics of `stream/bound`; all else
decides what is cheap, never what is true.
"""

__all__ = ()
