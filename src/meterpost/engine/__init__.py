"""The processes of a running meterpost: the engine, the edge, and the socket between them.

The engine alone opens the event store; it drains, seals, posts, and answers operations through
a local socket. The edge serves HTTP and never opens the event store. Here: processes, threads,
frames, health. Not here: what an operation or a job does, which the application brings
(`ports.EngineApplication`); starting and supervising the processes (`meterpost.supervise`).
"""

from meterpost.engine.client import EngineClient
from meterpost.engine.ports import Caller, EngineApplication, Job
from meterpost.engine.run_dir import RunDirectory

__all__ = ["Caller", "EngineApplication", "EngineClient", "Job", "RunDirectory"]
