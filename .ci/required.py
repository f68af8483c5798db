"""Checks that every test of `.ci/required-tests` passed, by pytest's JUnit reports.

Run with the reports' paths. A test passed if a case of it did and none failed. Prints
the closing line of `.ci/run`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

LIST = Path(__file__).with_name("required-tests")
BAD = ("failure", "error")


def required() -> list[str]:
    """Return the tests that must pass, as pytest names them, without parameters."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def reported(node: str) -> str:
    """Return a test's name as reports have it: dots between all parts."""
    file, *names = node.split("::")
    return ".".join([file.removesuffix(".py").replace("/", "."), *names])


def main(reports: list[str]) -> str | int:
    """Return what is wrong, or 0."""
    passed: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for report in reports:
        for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it
            name = f"{case.get('classname')}.{case.get('name', '').split('[')[0]}"
            if any(case.find(tag) is not None for tag in BAD):
                failed[name] += 1
            elif case.find("skipped") is None:
                passed[name] += 1
    missing = [
        node
        for node in required()
        if not passed[reported(node)] or failed[reported(node)]
    ]
    if missing:
        return "\n".join(["required tests that did not pass:", *missing])
    print(f"{passed.total()} passed, {failed.total()} failed")
    return int(failed.total() > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
