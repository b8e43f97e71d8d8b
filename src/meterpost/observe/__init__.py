"""What a running meterpost says about itself: logs and metrics.

Here: how log lines look and what never stands in them, the counters of each process, their text
form. Not here: health checks, which know the processes (`meterpost.engine`), and figures that
are queries over the database.
"""

from meterpost.observe.logging import configure_logging, log_context
from meterpost.observe.metrics import EdgeMetrics, EngineMetrics, exposition

__all__ = ["EdgeMetrics", "EngineMetrics", "configure_logging", "exposition", "log_context"]
