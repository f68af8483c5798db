"""Builds the API reference and the pages of `smart_engine/docs` into a folder.

Public names load when they are first used, and pdoc shows what is loaded.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pdoc
import pdoc.render

PACKAGES = ("smart_engine", "langchain_smart", "llama_index_smart", "smart_engine.docs")


def main(folder: Path) -> None:
    """Write one page a module; a name that does not load is an error."""
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            vars(package)[name] = getattr(package, name)
    pdoc.render.configure(docformat="google", mermaid=True, show_source=False)
    pdoc.pdoc(*PACKAGES, output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
