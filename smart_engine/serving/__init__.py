"""What every adapter shares between a user's settings and a session, still pure.

An adapter adds only what its framework demands: it makes the calls.
"""

__all__ = ()
