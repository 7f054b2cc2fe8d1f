"""What the command tells a person on stderr: one line each, and nothing a terminal would obey."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import warnings

from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._streams import write_stderr
from mirage_async.exceptions import ClosedError, JobError, MirageError, SubmissionUncertainError

__all__ = [
    "AdvisedError",
    "command_line",
    "complain",
    "counted",
    "for_shell",
    "one_line",
    "resume_line",
    "set_up",
    "tell",
    "warn",
]

_PROGRAM = "mirage-async"
_IN_THE_SHELL = (  # what a program can do, and what somebody at a prompt can
    ("; only resend_uncertain=True would send it again unasked", ""),
    ("lives on: attach with its token", "lives on"),
    ("recover(any_account=True) takes it", "`mirage-async jobs wait --any-account` takes it"),
)
_LONGEST_WORDS = 2000  # characters; tokens and addresses have a few hundred


class AdvisedError(CommandError):
    """A reason to end that comes with what a person can do now.

    Attributes:
        advice: one line, told after the reason.
    """

    def __init__(self, message: str, *, code: ExitCode, advice: str) -> None:
        super().__init__(message, code=code)
        self.advice = advice


def one_line(text: str, *, whole: bool = False) -> str:
    """Return `text` as one line of printable characters.

    What is very long is cut, and blanks in a row become one, unless it is wanted whole: a path in it may have two.
    """
    kept = text if whole else text[:_LONGEST_WORDS]
    printable = "".join(letter if letter.isprintable() else " " for letter in kept)
    return printable if whole else " ".join(printable.split())


def command_line(*words: str) -> str:
    """Return the line at which a shell reads these very words, in characters that stderr can show."""
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    shown = [letter for letter in word if _can_be_shown(letter)]
    if len(shown) == len(word):
        return shlex.quote(word)
    return f"$'{''.join(map(_escaped, word))}'"


def _can_be_shown(letter: str) -> bool:
    try:
        letter.encode(getattr(sys.stderr, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return letter.isprintable()


def _escaped(letter: str) -> str:
    """Return a letter as it stands within $'...', by its bytes where it cannot be shown."""
    if letter in "\\'":
        return f"\\{letter}"
    return letter if _can_be_shown(letter) else "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def counted(amount: float, noun: str) -> str:
    """Return a number with its noun: "1 credit", "2.5 credits", "0 pictures"."""
    return f"{amount:g} {noun}" if amount == 1 else f"{amount:g} {noun}s"


def for_shell(text: str) -> str:
    """Return a message of the library without advice on what to write in Python."""
    for program, shell in _IN_THE_SHELL:
        text = text.replace(program, shell)
    return text


def tell(text: str, *, whole: bool = False) -> None:
    """Write one line to stderr, or nowhere where stderr fails.

    Args:
        text: the line.
        whole: whether all of it counts, however long, as where it holds a command that is to be copied.
    """
    write_stderr(f"{_PROGRAM}: {one_line(for_shell(text), whole=whole)}\n")


def warn(text: str, *, whole: bool = False) -> None:
    """Tell about something odd that stops nothing; `whole` as for `tell`."""
    tell(f"warning: {text}", whole=whole)


def complain(error: BaseException) -> None:
    """Tell why the command ends, in one line, and in another how to go on where there is a way."""
    reason = str(error) or type(error).__name__
    if isinstance(error, SubmissionUncertainError) and error.key and error.key not in reason:
        reason = f"{reason}; it may have been paid for (key {error.key})"
    elif not isinstance(error, MirageError | OSError) and type(error).__module__ == "builtins":
        reason = f"unexpected {type(error).__name__}: {reason} (MIRAGE_DEBUG=1 shows where)"
    interrupted = isinstance(error, CommandError) and error.code is ExitCode.INTERRUPTED
    tell(reason if interrupted else f"error: {reason}")
    if isinstance(error, AdvisedError):
        tell(error.advice, whole=True)
    token = error.token if isinstance(error, JobError | ClosedError) else None
    if token is not None:
        tell(resume_line(token))


def resume_line(token: str) -> str:
    """Say how to come back to an accepted job, with nothing to be bought again."""
    return f"to resume, in Python: await Mirage().job('{token}')"


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        tell(f"{level}{_words_of(record) if record.exc_info else self.format(record)}")


def _words_of(record: logging.LogRecord) -> str:
    """Say what has failed without saying where in the code, which is for those who ask what goes on."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None or logging.getLogger("mirage_async").isEnabledFor(logging.INFO):
        return logging.Formatter("%(message)s").format(record)
    return f"{record.getMessage()}: {type(error).__name__}: {error} (-v shows where)"


def set_up() -> None:
    """Send log records and Python's warnings to stderr in the form of all other lines; call it once."""
    logging.basicConfig(level=logging.WARNING, handlers=[_Stderr()], format="%(message)s")
    warnings.showwarning = _show_warning


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    warn(str(message))
