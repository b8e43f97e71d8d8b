"""The HTTP ways in: parse a request, call a room, present the answer.

Lives here: the plain ASGI app that takes events (``events``), the application for everything
else. Not here: decisions. What a request means is said by the rooms.
"""
