"""One folder per outside system; each translates between its vendor's words and ours.

Lives here: clients, mappings, the registry that finds connectors, ours and others', through
the entry points of ``meterpost.connectors``. Not here: retries, permits, look-ups in doubt
(``posting``). A connector never opens our database.
"""
