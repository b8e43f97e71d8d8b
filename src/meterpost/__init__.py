"""meterpost: product usage in, governed ERP transactions out.

The rooms follow the path of the data: ``ingest`` → ``metering`` → ``masterdata`` →
``workflows`` (with ``rating``) → ``staging`` → ``posting`` → ``reconcile``; ``audit`` and
``observe`` watch all of them. ``bootstrap`` is the only place that wires them together.
"""

__version__ = "0.1.0"
