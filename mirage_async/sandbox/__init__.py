"""A local stand-in for the four providers: their dialects, real pictures, and trouble on demand."""

from mirage_async.sandbox.faults.fault import Fault
from mirage_async.sandbox.jobs import JobView
from mirage_async.sandbox.requestlog import SeenRequest
from mirage_async.sandbox.server import Sandbox, Statistics

__all__ = ["Fault", "JobView", "Sandbox", "SeenRequest", "Statistics"]
