"""What should exist in an ERP, reviewed and approved before anyone sends it.

Lives here: staged transactions and their state table, rendering, dues, approvals, exceptions.
Not here: what usage and prices say (``workflows``, ``rating``), sending (``posting``).
"""
