"""The handle of a job, its states, and the ports through which the rest of the library moves it."""

from mirage_async.jobs._job import LAST_LOOK, Job, checked_wait, ended_well, last_look_time, new_job, new_key
from mirage_async.jobs._kind import Hints, Intent, JobKind, NullHints, NullRecorder, Recorder, Waker
from mirage_async.jobs._settle import accept, begin_to_conclude, conclude, is_dubious, note, part_from, refuse
from mirage_async.jobs._states import check_move
from mirage_async.jobs._tokens import Token, read_token

__all__ = [
    "LAST_LOOK",
    "Hints",
    "Intent",
    "Job",
    "JobKind",
    "NullHints",
    "NullRecorder",
    "Recorder",
    "Token",
    "Waker",
    "accept",
    "begin_to_conclude",
    "check_move",
    "checked_wait",
    "conclude",
    "ended_well",
    "is_dubious",
    "last_look_time",
    "new_job",
    "new_key",
    "note",
    "part_from",
    "read_token",
    "refuse",
]
