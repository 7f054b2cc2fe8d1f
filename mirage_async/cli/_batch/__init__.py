"""What `batch` does: read the lines, keep what is known of them in a folder, buy the rest, and show all of it."""

from mirage_async.cli._batch.lines import read_lines
from mirage_async.cli._batch.order import BatchOrder, bound_of
from mirage_async.cli._batch.run import fulfil

__all__ = ["BatchOrder", "bound_of", "fulfil", "read_lines"]
