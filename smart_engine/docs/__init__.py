"""Pages that last: how it is built, why it holds, its command line, and how to keep it.

.. include:: architecture.md
.. include:: mathematics.md
.. include:: command-line.md
.. include:: maintaining.md
"""

__all__ = ()
