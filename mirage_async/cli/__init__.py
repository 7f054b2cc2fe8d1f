"""The command `mirage-async`: results on stdout, progress and logs on stderr, exit codes that scripts can use.

One file a command (`avatar`, `batch`, `demo`, `generate`, `jobs`, `sandbox`, `webhook`) says what a person types; only
the one asked for is loaded.
What a command then does is imported when it runs, so that help, version and shell completion load no HTTP client.
"""

from mirage_async.cli._app import run
from mirage_async.cli._running import signals

__all__ = ["run", "signals"]
