"""Master data: who owes what for which usage, as the world was and as we knew it.

Customers, contracts with lines, prices, periods and the crosswalk live here, with their import,
their history, and the resolution of subjects to contract lines. How much was used is metering's
word, what it costs is rating's, what becomes of it is workflows'. See docs/masterdata.md.
"""
