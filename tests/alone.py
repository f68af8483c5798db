"""Runs code alone in a process, so that its memory is its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def run_alone(code: str, *arguments: Any) -> Any:
    """Return what code prints as JSON, which reads its arguments so, too."""
    printed = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(printed)
