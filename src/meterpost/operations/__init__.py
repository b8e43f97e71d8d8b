"""What people and programs can ask meterpost to do, each once, for every way in.

An operation takes checked arguments and a principal, uses the wired application, and returns
plain JSON. The command line and the HTTP API only parse, call and present; whether an operation
runs here or in the engine (which alone opens the event store) is the caller's transport's
affair. Not here: rules of any room, presentation.
"""
