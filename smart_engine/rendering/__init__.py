"""How a report is shown: one content, and one file for each form it takes.

Strings and figures only: nothing here decides, writes a file or asks the network.
"""

from __future__ import annotations

__all__ = ()
