"""From accepted events to exact usage.

Lives here: meters and their expressions, measurements, rollups, cutoffs, the reading of usage
for any period and cutoff. Not here: whose usage it is (``masterdata``), what it costs
(``rating``), when a period is closed (``workflows``), where rows are kept (``storage``).
"""
