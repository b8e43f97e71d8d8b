"""People, what they may do, and the keys their programs use.

Lives here: users, roles, scopes, API keys, answers to repeated requests. Not here: who may
approve what (four eyes: ``staging``), how a request carries its key (``api``).
"""
