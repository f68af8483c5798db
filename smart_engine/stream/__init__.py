"""What a stream is made of: the bound on misses, the audit rate, the choice of policy.

`bound` alone carries the promise, with the session that keeps to it; all else decides
what is cheap, never what is true.
"""

__all__ = ()
