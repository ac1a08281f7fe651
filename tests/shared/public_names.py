"""The public names, module by module: those that docs/api.rst lists."""

import re
from pathlib import Path

API = Path(__file__).resolve().parents[2] / "docs" / "api.rst"


def read_names(text):
    """Return the names that follow each ``currentmodule``, in lists and in tables."""
    names = {}
    for line in text.splitlines():
        if module := re.match(r"\.\. currentmodule:: (\S+)$", line):
            listed = names.setdefault(module[1], [])
        elif name := re.match(r"   (\w+)$|``(\w+)`` ", line):
            listed.append(name[1] or name[2])
    return names


NAMES = read_names(API.read_text(encoding="utf-8"))
