"""After deployment: whether served probabilities are still calibrated."""

from skcalib.monitoring._monitor import CalibrationMonitor
from skcalib.monitoring._release import LossMonitor
from skcalib.monitoring._report import MonitorReport

__all__ = ["CalibrationMonitor", "LossMonitor", "MonitorReport"]
