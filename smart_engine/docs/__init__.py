"""Pages that last: how it is built, why it holds, and how to keep it.

.. include:: architecture.md
.. include:: mathematics.md
.. include:: maintaining.md
"""

__all__ = ()
