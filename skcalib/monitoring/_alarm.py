"""What every monitor keeps of its alarm and its parameters."""

from typing import Any


class HasAlarm:
    """A monitor that keeps the number of rows seen at its alarm in `_alarm_row`.

    When its first rows come it keeps its parameters in `_used`.
    """

    get_params: Any  # Of the estimator.

    @property
    def _settings(self) -> dict[str, Any]:
        """The parameters, as they were when the first rows came."""
        known = vars(self).get("_used")
        return self.get_params(deep=False) if known is None else known

    @property
    def alarm_(self) -> bool:
        """Whether there has ever been an alarm."""
        return self.alarm_row_ is not None

    @property
    def alarm_row_(self) -> int | None:
        """How many rows had been seen at the alarm."""
        return getattr(self, "_alarm_row", None)
