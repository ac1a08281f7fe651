"""What long fits tell of their progress, on standard error."""

import sys


class Progress:
    """Tells on standard error what is tried, and the loss after each epoch.

    Parameters
    ----------
    name : str
        Who tells it.

    shown : bool
        Whether anything is told; if not, nothing needs to be computed for it.
    """

    def __init__(self, name: str, shown: bool) -> None:
        self._name = name
        self.shown = shown
        self._count = 0
        self._open = False

    def note(self, text: str, passing: bool = False) -> None:
        """Write a line; on a terminal the next one replaces a passing one."""
        if not self.shown:
            return
        self._open = passing and sys.stderr.isatty()
        sys.stderr.write(f"[{self._name}] {text}" + ("\r" if self._open else "\n"))
        sys.stderr.flush()

    def epoch(self, loss: float) -> None:
        """Tell the loss after one more epoch."""
        self._count += 1
        self.note(f"epoch {self._count}: loss {loss:.6f}")

    def close(self) -> None:
        """End a passing line."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False
