"""What the `audit` strategy is made of: evidence, policies, beliefs, risk and plans.

`acceptance` alone carries the promise; all else decides what is cheap, never what is
true.
"""

__all__ = ()
