"""The built pages load nothing from elsewhere: they read the same without a network.

    python .ci/offline.py docs/_build/html

Prints each script, style sheet, picture and font that a page takes from another host,
and fails if there is one. Links that a reader may follow are no matter.
"""

import re
import sys
from pathlib import Path

# What a browser fetches by itself; an `a` is followed by readers only.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*?\bsrc=["'](?:https?:)?//[^"']+"""
    r"""|<link\b(?=[^>]*rel=["'](?:stylesheet|preload|preconnect|icon))[^>]*"""
    r"""?\bhref=["'](?:https?:)?//[^"']+"""
    r"""|url\(\s*["']?(?:https?:)?//[^)"']+"""
    r"""|@import\s+["'](?:https?:)?//[^"']+""",
    re.IGNORECASE,
)


def main(site: Path) -> int:
    """Name what the pages of a site fetch; 1 if there is anything, or no page."""
    pages = [path for kind in ("html", "css") for path in site.rglob(f"*.{kind}")]
    if not pages:
        print(f"{site} holds no pages; build them first.")
        return 1
    found = [
        f"{path.relative_to(site)}: {match.group()}"
        for path in sorted(pages)
        for match in FETCHED.finditer(path.read_text(encoding="utf-8"))
    ]
    print("\n".join(found) or f"{len(pages)} pages and style sheets load from here.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
