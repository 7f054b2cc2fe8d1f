"""Where the sandbox's behaviours come from: a provider's own page, public sources, or our own heads.

What concerns one provider stands in its dialect; here is what concerns all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["BEHAVIOURS", "TAGS", "Behaviour", "Tag", "documented", "invented", "observed"]

Tag: TypeAlias = Literal["documented", "observed", "invented"]

TAGS: Final[tuple[Tag, ...]] = ("documented", "observed", "invented")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One thing the sandbox does, and who says that it is so.

    Attributes:
        provider: for example "mira"; "sandbox" for what concerns all of them.
        behaviour: one sentence, with the operations it is about by name.
        tag: "documented", the provider's own page says so; "observed", other public sources do, and nobody has checked
            it against the live service; "invented", nobody says so, and it was chosen here.
        source: the page or repository; "" for what is invented.
    """

    provider: str
    behaviour: str
    tag: Tag
    source: str = ""


def documented(provider: str, source: str, *behaviours: str) -> tuple[Behaviour, ...]:
    """Return what a provider's own page says."""
    return tuple(Behaviour(provider, behaviour, "documented", source) for behaviour in behaviours)


def observed(provider: str, source: str, *behaviours: str) -> tuple[Behaviour, ...]:
    """Return what another public source says."""
    return tuple(Behaviour(provider, behaviour, "observed", source) for behaviour in behaviours)


def invented(provider: str, *behaviours: str) -> tuple[Behaviour, ...]:
    """Return what was chosen here."""
    return tuple(Behaviour(provider, behaviour, "invented") for behaviour in behaviours)


_US = "sandbox"

BEHAVIOURS: tuple[Behaviour, ...] = (
    *documented(
        _US,
        "RFC 9110: HTTP Semantics",
        "Retry-After is a number of seconds, or a date where a fault asks for that.",
        "A 405 names the methods that the path does take.",
    ),
    *invented(
        _US,
        # Who may do what.
        "Any key that is not empty is accepted, and all keys see the same jobs.",
        "All providers share one port, since no two of their paths are the same.",
        "Whoever has the link to a picture may fetch it, without a key, or ask for its head alone.",
        # Rules.
        "Unless it is strict, documented examples pass that break the documents' own rules, and null counts as absent.",
        "When it is strict, fields that no document knows are refused by name.",
        "An unknown path gets 404 and a wrong method 405, both before anybody asks for a key.",
        "A body of more than 64 MiB gets 413.",
        "Idle connections are closed after five seconds.",
        "Every answer but those under /_sandbox/ carries X-Request-Id, counted up.",
        # Jobs.
        "Ids, durations and pictures without a seed follow from the seed of the sandbox, the same in every run.",
        "An image takes one to three seconds and an avatar four, unless durations say otherwise.",
        "The first quarter of a job's work still counts as waiting.",
        "With a number of workers set, jobs wait for a free one in the order in which they were bought.",
        "A client that leaves does not stop its purchase, which is finished and charged.",
        "A purchase that is sent again is another purchase, since no provider documents how to tell a repetition.",
        "No job fails by itself: bad ends come by order, as a fault or by hand.",
        "No client can cancel a job, since no provider documents a way to do it.",
        # Pictures.
        "Pictures are drawn landscapes of exactly the size that was asked for.",
        "Reference pictures change the colours of the result, and links to them are never fetched.",
        "No prompt is refused for what it says, unless it orders a fault that does not exist.",
        # Money and limits.
        "A picture, or an avatar, costs one credit where its provider names no price.",
        "Credits last for ever until somebody sets them; the purchase they do not suffice for gets 402.",
        "There is no limit until one is set, and then a key's allowance refills evenly rather than at once.",
        "Every provider's answers say a limit in the headers that Milady's server uses, and 429 carries Retry-After.",
        "A job that fails stays charged, and a purchase that fails while its client waits is not charged.",
        # Trouble and time.
        "Faults are trouble made to order, and no provider knows their names, not even in a prompt.",
        "Webhooks are called on this machine and in its private network alone, and redirects are not followed.",
        "The clock can be stopped and moved forward, and jobs, links, limits, stalls and deliveries go by it.",
    ),
)
