"""Promises about labels: only `promise` carries them, all else makes them cheap."""

from __future__ import annotations

__all__ = ()
