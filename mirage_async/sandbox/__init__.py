"""A local stand-in for the four providers: their dialects, real pictures, and trouble on demand."""

from mirage_async.sandbox.accounts import AccountView
from mirage_async.sandbox.clock import VirtualClock
from mirage_async.sandbox.durations import ColdStart, Lognormal
from mirage_async.sandbox.faults.fault import Fault
from mirage_async.sandbox.faults.rules import FaultRule
from mirage_async.sandbox.honesty import Behaviour
from mirage_async.sandbox.jobs import JobView
from mirage_async.sandbox.requestlog import SeenRequest
from mirage_async.sandbox.server import Sandbox, Statistics
from mirage_async.sandbox.webhooks import Delivery, DeliveryAttempt

__all__ = [
    "AccountView",
    "Behaviour",
    "ColdStart",
    "Delivery",
    "DeliveryAttempt",
    "Fault",
    "FaultRule",
    "JobView",
    "Lognormal",
    "Sandbox",
    "SeenRequest",
    "Statistics",
    "VirtualClock",
]
