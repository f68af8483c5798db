"""The guide, figures, command line and mathematics; how it is built and maintained.

.. include:: guide.md
.. include:: figures.md
.. include:: command-line.md
.. include:: mathematics.md
.. include:: architecture.md
.. include:: maintaining.md
"""

__all__ = ()
