"""ERPs that behave like the real ones, faults included, with a ledger of their own.

The independent witness of meterpost's tests: it imports nothing of meterpost.
"""
