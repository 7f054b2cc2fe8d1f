"""A local stand-in for the four providers: their dialects, real pictures, and trouble on demand."""

from .faults import Fault
from .jobs import JobView
from .requestlog import SeenRequest
from .server import Sandbox, Statistics

__all__ = ["Fault", "JobView", "Sandbox", "SeenRequest", "Statistics"]
