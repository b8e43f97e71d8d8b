"""Each approved transaction becomes exactly one ERP document, or stands visibly in doubt.

Lives here: the posting key's use, calls, permits, sending, probing, read-back, receipts. Not
here: what should be posted (``staging``), how a vendor's API is spoken (``connectors``),
whether the ERP still holds it weeks later (``reconcile``).
"""
