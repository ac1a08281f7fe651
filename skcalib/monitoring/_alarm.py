"""What every monitor tells of its alarm."""


class HasAlarm:
    """A monitor that keeps the number of rows seen at its alarm in `_alarm_row`."""

    @property
    def alarm_(self) -> bool:
        """Whether there has ever been an alarm."""
        return self.alarm_row_ is not None

    @property
    def alarm_row_(self) -> int | None:
        """How many rows had been seen at the alarm."""
        return getattr(self, "_alarm_row", None)
