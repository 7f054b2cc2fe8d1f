"""What `mirage-async demo` does: a plan, its performance, and the page that remains."""

from mirage_async.cli._demo.folder import prepare
from mirage_async.cli._demo.stage import give

__all__ = ["give", "prepare"]
