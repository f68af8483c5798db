"""The guide, the figures, the command line, the mathematics, and how it is built and kept.

.. include:: guide.md
.. include:: figures.md
.. include:: command-line.md
.. include:: mathematics.md
.. include:: architecture.md
.. include:: maintaining.md
"""

__all__ = ()
