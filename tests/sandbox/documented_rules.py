"""A judge of requests: what the providers' documents, read strictly, say about each one.

It reads the bytes that go out, not how they were made, and shares no code with the sandbox. Where the documents leave a
question open (two keys in one request, a prompt of blanks) it says so, and either answer is right.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from calling import encoded, plain_base64

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

NO_PLACE = "the request"  # a fault that is not in a field: the method, the key, the name in the path
Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it goes out, without its Content-Length."""

    method: str
    target: bytes
    headers: Headers
    body: bytes = b""

    def all_of(self, name: bytes) -> list[str]:
        """Return every value of a header."""
        return [value.decode("latin-1").strip() for key, value in self.headers if key.lower() == name]


@dataclass
class Verdict:
    """What the documents say: faults by place ("images[0].data", "body"), and whether something is left open."""

    statuses: frozenset[int] = frozenset({200})
    faults: set[str] = field(default_factory=set[str])
    open: bool = False

    def fault(self, place: str) -> None:
        """Note that the rule at `place` is broken."""
        self.faults.add(place)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A line of the documents' table of operations."""

    name: str
    method: str
    path: str
    refusals: frozenset[int] = frozenset({400})
    fields: Collection[str] = ()
    judge: Callable[[Mapping[str, Any], Verdict], None] | None = None
    form: bool = False
    needs_key: bool = True

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.name.partition(".")[0]


# --- pictures: (format, width, height) by their base64 text -----------------------------------------------------------

FACTS: dict[str, tuple[str, int, int]] = {
    plain_base64(encoded(size, kind=kind)): (kind, *size)
    for kind, size in (
        ("PNG", (512, 512)),
        ("JPEG", (1024, 576)),
        ("PNG", (600, 511)),
        ("PNG", (900, 600)),
        ("GIF", (512, 512)),
        ("WEBP", (512, 512)),
        ("PNG", (8, 8)),
        ("JPEG", (8, 8)),
    )
}


# --- the judge --------------------------------------------------------------------------------------------------------


def judged(operation: Operation, request: Request, *, exists: bool) -> Verdict:
    """Return what strict reading of the documents makes of `request`, sent to the path of `operation`.

    Args:
        operation: whose path it is.
        request: what goes out.
        exists: for an operation with a name in its path, whether that name is known.
    """
    # Whoever may have a picture may ask for its head.
    allowed = {"GET", "HEAD"} if operation.name.endswith(".download") else {operation.method}
    if request.method not in allowed:
        return Verdict(frozenset({405}), {NO_PLACE})
    verdict = Verdict()
    if operation.needs_key:
        _judge_key(operation, request, verdict)
    if verdict.faults:
        return verdict
    if operation.judge is None:
        if not exists:
            verdict.statuses |= {404}
            verdict.fault(NO_PLACE)
        return verdict
    fields = _form_fields(request, verdict) if operation.form else _json_fields(request, verdict)
    verdict.statuses = operation.refusals
    if fields is not None:
        for name in fields:
            if name not in operation.fields:
                verdict.fault(name)
        operation.judge(fields, verdict)
    return verdict


def _judge_key(operation: Operation, request: Request, verdict: Verdict) -> None:
    given = request.all_of(b"x-api-key" if operation.provider == "miragic" else b"authorization")
    good = re.compile(r"\S+" if operation.provider == "miragic" else r"Bearer +\S+")
    if len(given) == 1 and good.fullmatch(given[0]) and given[0].isascii():
        return
    if not any(re.search(r"\S" if operation.provider == "miragic" else r"(?i)bearer\s+\S", key) for key in given):
        verdict.statuses = frozenset({401})
        verdict.fault(NO_PLACE)
        return
    verdict.open = True


def _json_fields(request: Request, verdict: Verdict) -> Mapping[str, Any] | None:
    types = request.all_of(b"content-type")
    if not types or any(value.partition(";")[0].strip().lower() != "application/json" for value in types):
        verdict.fault("body")
    elif len(types) > 1 or not re.fullmatch(r"[a-z/]+(; *charset=\"?utf-8\"?)?", types[0].lower()):
        verdict.open = True
    try:
        text = request.body.decode("utf-8")
        fields = json.loads(text, parse_constant=_no_constant, parse_float=partial(_finite, verdict))
    except (ValueError, RecursionError):
        verdict.fault("body")
        return None
    if re.search(r"\\u[dD][89a-fA-F]", re.sub(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..", "", text)):
        verdict.open = True  # half a character, which JSON can spell and UTF-8 cannot
    if not isinstance(fields, dict):
        verdict.fault("body")
        return None
    return fields


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _finite(verdict: Verdict, digits: str) -> float:
    value = float(digits)
    verdict.open |= math.isinf(value)  # JSON sets no limit to numbers, but its readers do
    return value


def _form_fields(request: Request, verdict: Verdict) -> Mapping[str, Any] | None:
    types = request.all_of(b"content-type")
    kind = types[0].partition(";")[0].strip().lower() if types else ""
    verdict.open |= len(types) > 1
    if kind == "application/x-www-form-urlencoded" and request.body:
        return dict(parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True))
    found = re.search(r"boundary=([A-Za-z]+)$", types[0]) if kind == "multipart/form-data" else None
    if found is None or f"--{found[1]}".encode() not in request.body:
        verdict.fault("body")
        return None
    part = rb'--%b\r\nContent-Disposition: form-data; name="(\w+)"\r\n\r\n([^\r]*)\r\n' % found[1].encode()
    if re.fullmatch(rb"(?:%b)+--%b--\r\n" % (part, found[1].encode()), request.body) is None:
        verdict.open = True
        return None
    return {name.decode(): value.decode("utf-8", "replace") for name, value in re.findall(part, request.body)}


def _text(fields: Mapping[str, Any], verdict: Verdict, name: str, *, most: int | None = None) -> None:
    value = fields[name]
    if not isinstance(value, str) or not value or (most is not None and len(value) > most):
        verdict.fault(name)
    elif not value.strip():
        verdict.open = True


def _any_text(value: object, verdict: Verdict, place: str) -> None:
    """Judge a text of which nobody says whether it may be empty."""
    if not isinstance(value, str):
        verdict.fault(place)
    elif not value.strip():
        verdict.open = True


def _judge_fields(fields: Mapping[str, Any], verdict: Verdict, rules: Mapping[str, Callable[..., None]]) -> None:
    for name, rule in rules.items():
        if name in fields:
            rule(fields, verdict, name)


def _one_of(fields: Mapping[str, Any], verdict: Verdict, name: str, allowed: Collection[str]) -> None:
    if not isinstance(fields[name], str) or fields[name] not in allowed:
        verdict.fault(name)


def _whole(fields: Mapping[str, Any], verdict: Verdict, name: str, low: int, high: int) -> None:
    value = fields[name]
    if type(value) is not int or not low <= value <= high:
        verdict.fault(name)


def _whole_text(fields: Mapping[str, Any], verdict: Verdict, name: str) -> None:
    value = fields[name]
    if not isinstance(value, str) or not re.fullmatch(r"\s*[-+]?[0-9_]+(\.0*)?(e[0-9])?\s*", value):
        verdict.fault(name)
    elif not re.fullmatch(r"[1-9][0-9]*", value):
        verdict.open = True  # "0300", "+300", "3e2": a number, though nobody writes it like that
    elif not 256 <= float(value) <= 2048:
        verdict.fault(name)


def _required(fields: Mapping[str, Any], verdict: Verdict, *names: str) -> None:
    for name in names:
        if name not in fields:
            verdict.fault(name)


def _picture(value: object, verdict: Verdict, place: str, *, types: Collection[str]) -> None:
    """Judge a base64 data URL of a picture whose declared type is its real one."""
    found = re.fullmatch(r"data:image/([a-z]+);base64,(.+)", value, re.DOTALL) if isinstance(value, str) else None
    if found is None or found[1] not in types or found[2] not in FACTS or FACTS[found[2]][0].lower() != found[1]:
        verdict.fault(place)


def _url(value: str, verdict: Verdict, place: str) -> None:
    if not value.lower().startswith(("http://", "https://")):
        verdict.fault(place)
        return
    try:
        usable = bool(urlsplit(value).hostname) and re.search(r"[\s\x00-\x1f\x7f]", value) is None
        usable = usable and urlsplit(value).port != 0
    except ValueError:
        usable = False
    if not usable:
        verdict.fault(place)


# --- Mirako -----------------------------------------------------------------------------------------------------------

_MIRAKO_RATIOS = ("16:9", "1:1", "4:3", "3:2", "2:3", "3:4", "9:16")


def _judge_mirako(fields: Mapping[str, Any], verdict: Verdict) -> None:
    _required(fields, verdict, "prompt", "aspect_ratio")
    rules: dict[str, Callable[..., None]] = {
        "prompt": _text,
        "aspect_ratio": partial(_one_of, allowed=_MIRAKO_RATIOS),
        "seed": partial(_whole, low=-(2**31), high=2**31 - 1),
        "images": _mirako_images,
    }
    _judge_fields(fields, verdict, rules)


def _mirako_images(fields: Mapping[str, Any], verdict: Verdict, name: str) -> None:
    items = fields[name]
    if not isinstance(items, list) or len(items) > 5:
        verdict.fault(name)
        return
    for index, item in enumerate(items):
        place = f"{name}[{index}]"
        if not isinstance(item, dict):
            verdict.fault(place)
            continue
        for key in item:
            if key not in {"label", "data"}:
                verdict.fault(f"{place}.{key}")
        if "label" in item:
            _any_text(item["label"], verdict, f"{place}.label")
        _picture(item.get("data"), verdict, f"{place}.data", types=("png", "jpeg"))


def _judge_mirako_task(fields: Mapping[str, Any], verdict: Verdict) -> None:
    _judge_mirako(fields, verdict)
    if "webhook" not in fields:
        return
    webhook = fields["webhook"]
    if not isinstance(webhook, dict):
        verdict.fault("webhook")
        return
    for key in webhook:
        if key not in {"url", "auth_token"}:
            verdict.fault(f"webhook.{key}")
    if isinstance(webhook.get("url"), str):
        _url(webhook["url"], verdict, "webhook.url")
    else:
        verdict.fault("webhook.url")
    if "auth_token" in webhook:
        _any_text(webhook["auth_token"], verdict, "webhook.auth_token")


def _judge_avatar(fields: Mapping[str, Any], verdict: Verdict) -> None:
    _required(fields, verdict, "name", "image")
    if "name" in fields:
        _text(fields, verdict, "name")
    if "image" in fields:
        kind, width, height = FACTS.get(fields["image"], ("", 0, 0)) if isinstance(fields["image"], str) else ("", 0, 0)
        if kind not in {"PNG", "JPEG"} or min(width, height) < 512 or width / height not in {1, 16 / 9}:
            verdict.fault("image")


# --- Miragic, Mira, Milady --------------------------------------------------------------------------------------------

_MIRAGIC_MODELS = ("flux", "turbo", "gptimage", "kontext")
_MIRA_SIZES = ("1024x1024", "1024x1536", "1536x1024", "auto")
_MIRA_QUALITIES = ("low", "medium", "high", "auto")
_MILADY_MODELS = (
    "google/gemini-2.5-flash-image",
    "google/gemini-3.1-flash-image-preview",
    "google/gemini-3-pro-image",
    "openai/gpt-5-nano",
    "bfl/flux-kontext-max",
)
_MILADY_RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21")
_MILADY_STYLES = (
    "none",
    "photographic",
    "digital-art",
    "comic-book",
    "fantasy-art",
    "analog-film",
    "neon-punk",
    "isometric",
    "low-poly",
    "origami",
    "line-art",
    "cinematic",
    "3d-model",
)


def _judge_miragic(fields: Mapping[str, Any], verdict: Verdict) -> None:
    _required(fields, verdict, "prompt", "model", "width", "height")
    rules: dict[str, Callable[..., None]] = {
        "prompt": _text,
        "model": partial(_one_of, allowed=_MIRAGIC_MODELS),
        "width": _whole_text,
        "height": _whole_text,
    }
    _judge_fields(fields, verdict, rules)
    if fields.get("image_url"):
        _url(fields["image_url"], verdict, "image_url")
        if fields.get("model") != "kontext":
            verdict.fault("image_url")
    elif "image_url" in fields:
        verdict.open = True  # the document's own answer shows it empty


def _judge_mira(fields: Mapping[str, Any], verdict: Verdict) -> None:
    _required(fields, verdict, "prompt")
    verdict.open |= "model" in fields or "user" in fields
    rules: dict[str, Callable[..., None]] = {
        "prompt": partial(_text, most=4000),
        "size": partial(_one_of, allowed=_MIRA_SIZES),
        "quality": partial(_one_of, allowed=_MIRA_QUALITIES),
        "response_format": partial(_one_of, allowed=("url", "b64_json")),
        "n": partial(_whole, low=1, high=4),
        "reference_images": _mira_references,
    }
    _judge_fields(fields, verdict, rules)


def _mira_references(fields: Mapping[str, Any], verdict: Verdict, name: str) -> None:
    items = fields[name]
    if not isinstance(items, list) or len(items) > 4:
        verdict.fault(name)
        return
    for index, item in enumerate(items):
        place = f"{name}[{index}]"
        if isinstance(item, str) and item.lower().startswith("http"):
            _url(item, verdict, place)
        else:
            _picture(item, verdict, place, types=("png", "jpeg", "webp", "gif"))


def _judge_milady(fields: Mapping[str, Any], verdict: Verdict) -> None:
    _required(fields, verdict, "prompt")
    rules: dict[str, Callable[..., None]] = {
        "prompt": partial(_text, most=4000),
        "model": partial(_one_of, allowed=_MILADY_MODELS),
        "aspectRatio": partial(_one_of, allowed=_MILADY_RATIOS),
        "stylePreset": partial(_one_of, allowed=_MILADY_STYLES),
        "numImages": partial(_whole, low=1, high=4),
        "sourceImage": _milady_source,
    }
    _judge_fields(fields, verdict, rules)


def _milady_source(fields: Mapping[str, Any], verdict: Verdict, name: str) -> None:
    _picture(fields[name], verdict, name, types=("png", "jpeg", "webp", "gif"))


# --- the documents' tables --------------------------------------------------------------------------------------------

_MIRAKO_FIELDS = ("prompt", "aspect_ratio", "seed", "images")
_RULE_BROKEN = frozenset({400, 422})

OPERATIONS = (
    Operation(
        name="mirako.generate",
        method="POST",
        path="/v1/image/generate",
        refusals=_RULE_BROKEN,
        fields=_MIRAKO_FIELDS,
        judge=_judge_mirako,
    ),
    Operation(
        name="mirako.create",
        method="POST",
        path="/v1/image/async_generate",
        refusals=_RULE_BROKEN,
        fields=(*_MIRAKO_FIELDS, "webhook"),
        judge=_judge_mirako_task,
    ),
    Operation(name="mirako.status", method="GET", path="/v1/image/async_generate/{name}/status"),
    Operation(
        name="mirako.avatar_create",
        method="POST",
        path="/v1/avatar/async_build",
        refusals=_RULE_BROKEN,
        fields=("name", "image"),
        judge=_judge_avatar,
    ),
    Operation(name="mirako.avatar_list", method="GET", path="/v1/avatar/list"),
    Operation(name="mirako.avatar_status", method="GET", path="/v1/avatar/{name}"),
    Operation(
        name="miragic.create",
        method="POST",
        path="/api/v1/image/generate",
        fields=("prompt", "model", "width", "height", "image_url"),
        judge=_judge_miragic,
        form=True,
    ),
    Operation(name="miragic.status", method="GET", path="/api/v1/image/jobs/{name}"),
    Operation(
        name="miragic.download",
        method="GET",
        path="/uploads/image-generation/processed/{user}/{name}.jpg",
        needs_key=False,
    ),
    *(
        Operation(
            name="mira.generate",
            method="POST",
            path=path,
            fields=("prompt", "size", "n", "quality", "reference_images", "model", "response_format", "user"),
            judge=_judge_mira,
        )
        for path in ("/v1/images/generate", "/v1/images/generations")
    ),
    Operation(name="mira.download", method="GET", path="/img/{name}.png", needs_key=False),
    Operation(
        name="milady.generate",
        method="POST",
        path="/api/v1/generate-image",
        fields=("prompt", "model", "aspectRatio", "numImages", "stylePreset", "sourceImage"),
        judge=_judge_milady,
    ),
    Operation(name="milady.download", method="GET", path="/images/{name}.webp", needs_key=False),
)
