"""Usage records turned into proposed transactions, one file per shipped workflow.

Lives here: closes, workflow definitions, the steps from usage to proposals. Not here: the
arithmetic of usage (``metering``) and price (``rating``), review (``staging``).
"""
