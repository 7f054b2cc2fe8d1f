"""What was paid for, on disk before anything depends on it, so that no end of a process loses it."""

from mirage_async.journal._entry import Entry, EntryState
from mirage_async.journal._journal import Journal, JournalStatistics
from mirage_async.journal._outcomes import StoredError, StoredImage, StoredOutcome
from mirage_async.journal._reading import journal_entries
from mirage_async.journal._seats import journal_files

__all__ = [
    "Entry",
    "EntryState",
    "Journal",
    "JournalStatistics",
    "StoredError",
    "StoredImage",
    "StoredOutcome",
    "journal_entries",
    "journal_files",
]
