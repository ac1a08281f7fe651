"""No function is longer than a page, no file longer than its subject.

    python .ci/sizes.py

Prints every function of the library with more than 40 lines of code, and every file
with more than 500 lines, and fails if there is one. What counts of a function is its
body: no signature, docstring, comment or blank line, no function inside it, and no
assignment by which a constructor stores a parameter.
"""

import ast
import io
import re
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FUNCTION = 40
LONGEST_FILE = 500
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def code_lines(text):
    """Return the numbers of the lines that hold code or docstrings."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def own_lines(node, lines):
    """Return how many lines of code the body of a function has."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not body:
        return 0
    own = lines & set(range(body[0].lineno, node.end_lineno + 1))
    for inner in ast.walk(node):
        if inner is not node and (isinstance(inner, FUNCTIONS) or stores(inner)):
            own -= set(range(inner.lineno, inner.end_lineno + 1))
    return len(own)


def stores(node):
    """Return whether a statement is ``self.name = name``."""
    return isinstance(node, ast.Assign) and bool(
        re.fullmatch(r"self\.(\w+) = \1", ast.unparse(node))
    )


def too_long(path):
    """Yield what is too long in one file, as it is printed."""
    text = path.read_text()
    name = path.relative_to(ROOT)
    n_lines = text.count("\n")
    if n_lines > LONGEST_FILE:
        yield f"{name}: {n_lines} lines, at most {LONGEST_FILE}"
    lines = code_lines(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, FUNCTIONS):
            n_lines = own_lines(node, lines)
            if n_lines > LONGEST_FUNCTION:
                yield (
                    f"{name}:{node.lineno}: {node.name} has {n_lines} lines of code, "
                    f"at most {LONGEST_FUNCTION}"
                )


def main():
    """Print what is too long, and say so by the exit status."""
    found = [
        line
        for path in sorted((ROOT / "skcalib").rglob("*.py"))
        for line in too_long(path)
    ]
    print("\n".join(found) or "every function and file is within its size")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
