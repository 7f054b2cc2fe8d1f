"""Requests nobody should send: documented ones with something broken, at every level from a field to the headers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, urlencode

from calling import data_url, encoded, plain_base64
from documented_rules import FACTS, Headers, Operation, Request
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["MALFORMED", "Sent", "good_key", "odd_names", "sent"]

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A request, and whether its path leads to something."""

    operation: Operation
    request: Request
    exists: bool


# --- values, as JSON text ---------------------------------------------------------------------------------------------

_PNG = data_url(encoded((8, 8)))
_JPEG = data_url(encoded((8, 8), kind="JPEG"), "image/jpeg")
_WEBP = data_url(encoded((512, 512), kind="WEBP"), "image/webp")
_PORTRAITS = [text for text, facts in FACTS.items() if facts in {("PNG", 512, 512), ("JPEG", 1024, 576)}]
_ODD_IMAGES = [
    *FACTS,
    "AAAA",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA...",
    "data:image/png;base64,",
    "data:image/gif;base64," + plain_base64(encoded(kind="GIF")),
    "data:text/plain;base64,AAAA",
    "data:image/png," + plain_base64(encoded((8, 8))),
    "data:image/png;base64," + plain_base64(encoded((8, 8), kind="JPEG")),
    _PNG + "=",
    _PNG[:-3],
    _PNG + "é",
    _PNG.replace("base64,", "base64,\n"),
]
# Nobody listens there, should anybody call.
_URLS = ["http://127.0.0.1:9/a.png", "http://localhost:9/a?b=c#d"]
_ODD_URLS = [
    "ftp://example.com/a",
    "example.com/a.png",
    "file:///etc/passwd",
    "//example.com",
    "http//x",
    "javascript:1",
    "http://",
    "https:///a",
    "HTTP://LOCALHOST:9/A",
    "https://exa mple.com",
    "https://[::1",
    "https://x:99999/",
    "https://example.com/\x00",
]
_PROMPTS = ("a lighthouse", "Füchse \U0001f98a", "line\nbreak\x00\x7f")
_DEPTHS = (10, 300, 2_000, 20_000)
_LOGIC = (True, False)


def _texts(*values: object) -> SearchStrategy[str]:
    return st.sampled_from([json.dumps(value) for value in values])


def _nested(leaves: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.lists(leaves, max_size=3) | st.dictionaries(st.text(max_size=5), leaves, max_size=3)


_JUNK = st.one_of(
    _texts(None, *_LOGIC, "", " ", "\u2028", "0", "null", [], {}, [None], {"a": []}, 0, -1, 5, 1.0, 1.5, 1e300),
    _texts(2**31, -(2**31) - 1, 2**63, 2**64, 10**30, "x" * 4000, "x" * 4001, "é" * 9_000),
    st.sampled_from(
        ["NaN", "Infinity", "-Infinity", "1e400", "-0", "01", "1.", r'"\ud800"', r'"\udc00x"', '"\x01"', ""]
    ),
    st.sampled_from(["9" * 5_000, "-" + "9" * 400, "0." + "0" * 500 + "1", "tru", "'single'", '"open']),
    st.sampled_from(_DEPTHS).map(lambda depth: "[" * depth + "]" * depth),
    st.sampled_from(_DEPTHS).map(lambda depth: '{"a":' * depth + "1" + "}" * depth),
    _texts(*_ODD_IMAGES, *_ODD_URLS, *_URLS, "16:9", "1:1", "512x512", "1024X1024", "flux ", "FLUX"),
    st.text(max_size=20).map(json.dumps),
    st.text(st.characters(codec="utf-8", exclude_characters='"\\'), max_size=20).map('"{}"'.format),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), _nested, max_leaves=8
    ).map(json.dumps),
)
_ODD_NUMBERS = (
    "255",
    "256.0",
    "2049",
    "0300",
    "+300",
    " 300",
    "3e2",
    "",
    "-300",
    "1" * 400,
    "\u0663\u0660\u0660",
    "0x200",
    "NaN",
)


def _lists(items: SearchStrategy[str], most: int) -> SearchStrategy[str]:
    return st.lists(items, max_size=most).map(lambda texts: f"[{','.join(texts)}]")


def _objects(fields: Mapping[str, SearchStrategy[str]], *, required: str) -> SearchStrategy[str]:
    optional = {name: values for name, values in fields.items() if name != required}
    pairs = st.fixed_dictionaries({required: fields[required]}, optional=optional)
    return pairs.map(lambda chosen: _json_object(list(chosen.items())))


def _json_object(pairs: Pairs) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}"


_REFERENCES = _objects({"data": _texts(_PNG, _JPEG), "label": _texts("tshirt", "[x]")}, required="data")
_ODD_REFERENCES = _objects({"data": _JUNK, "label": _JUNK, "name": _JUNK}, required="data") | _JUNK | _REFERENCES
_WEBHOOKS = _objects({"url": _texts(*_URLS), "auth_token": _texts("t")}, required="url")
_ODD_WEBHOOKS = _objects({"url": _texts(*_ODD_URLS, None, 5), "auth_token": _JUNK, "x": _JUNK}, required="url")
_MIRAKO = {
    "prompt": _texts(*_PROMPTS),
    "aspect_ratio": _texts("16:9", "1:1", "4:3", "3:2", "2:3", "3:4", "9:16"),
    "seed": _texts(0, -1, 2**31 - 1, -(2**31)),
    "images": _lists(_REFERENCES, 5),
}
# Values that follow every rule, as JSON text (for forms: as JSON text of the text).
_GOOD: Mapping[str, Mapping[str, SearchStrategy[str]]] = {
    "mirako.generate": _MIRAKO,
    "mirako.create": {**_MIRAKO, "webhook": _WEBHOOKS},
    "mirako.avatar_create": {"name": _texts("Ada", "\u738b"), "image": _texts(*_PORTRAITS)},
    "miragic.create": {
        "prompt": _texts(*_PROMPTS[:2]),
        "model": _texts("kontext", "kontext", "flux", "turbo", "gptimage"),
        "width": _texts("256", "2048", "1000"),
        "height": _texts("256", "2048", "1001"),
        "image_url": _texts(*_URLS),
    },
    "mira.generate": {
        "prompt": _texts(*_PROMPTS, "x", "x" * 4000),
        "size": _texts("1024x1024", "1024x1536", "1536x1024", "auto"),
        "n": _texts(1, 4),
        "quality": _texts("low", "medium", "high", "auto"),
        "reference_images": _lists(_texts(_PNG, _JPEG, _WEBP, *_URLS), 4),
        "response_format": _texts("url", "b64_json"),
    },
    "milady.generate": {
        "prompt": _texts(*_PROMPTS[:2]),
        "model": _texts("google/gemini-2.5-flash-image", "openai/gpt-5-nano", "bfl/flux-kontext-max"),
        "aspectRatio": _texts("1:1", "16:9", "21:9"),
        "numImages": _texts(1, 2),
        "stylePreset": _texts("none", "origami", "3d-model"),
        "sourceImage": _texts(_PNG, _JPEG, _WEBP),
    },
}
_REQUIRED: Mapping[str, tuple[str, ...]] = {
    "mirako.generate": ("prompt", "aspect_ratio"),
    "mirako.create": ("prompt", "aspect_ratio"),
    "mirako.avatar_create": ("name", "image"),
    "miragic.create": ("prompt", "model", "width", "height"),
    "mira.generate": ("prompt",),
    "milady.generate": ("prompt",),
}
# Values near the border of a rule, tried as often as arbitrary ones.
_NEAR: Mapping[str, SearchStrategy[str]] = {
    "images": _lists(_ODD_REFERENCES, 6),
    "webhook": _ODD_WEBHOOKS,
    "reference_images": _lists(_texts(_PNG, *_URLS, *_ODD_URLS, *_ODD_IMAGES) | _JUNK, 5),
    "sourceImage": _texts(*_ODD_IMAGES),
    "image": _texts(*_ODD_IMAGES),
    "image_url": _texts(*_ODD_URLS, ""),
    "width": _texts(*_ODD_NUMBERS),
    "height": _texts(*_ODD_NUMBERS),
    "seed": _texts(2**31, -(2**31) - 1, 1.0, "1", *_LOGIC),
    "n": _texts(0, 5, 1.0, "1", *_LOGIC),
    "numImages": _texts(0, 5, 1.0, "1", *_LOGIC),
}


# --- bodies -----------------------------------------------------------------------------------------------------------


@st.composite
def _pairs(draw: DrawFn, operation: Operation) -> Pairs:
    """Draw fields that follow the rules, with up to two of them spoilt."""
    good = _GOOD[operation.name]
    required = {name: good[name] for name in _REQUIRED[operation.name]}
    optional = {name: values for name, values in good.items() if name not in required}
    pairs = list(draw(st.fixed_dictionaries(required, optional=optional)).items())
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2)))):
        _spoil(draw, operation, pairs)
    return pairs


def _spoil(draw: DrawFn, operation: Operation, pairs: Pairs) -> None:
    name = draw(st.sampled_from(sorted(operation.fields)))
    at = next((place for place, (known, _) in enumerate(pairs) if known == name), None)
    how = draw(st.sampled_from(("replace", "replace", "near", "near", "drop", "repeat", "unknown")))
    if how == "unknown":
        known = draw(
            st.sampled_from(("mood", "Prompt", "", "webhook", "seed", "\ud800", "x" * 300)) | st.text(max_size=5)
        )
        pairs.append((known, draw(_JUNK)))
    elif how == "drop":
        pairs[:] = [pair for pair in pairs if pair[0] != name]
    elif how == "repeat" or at is None:
        pairs.append((name, draw(_NEAR.get(name, _JUNK))))
    else:
        pairs[at] = (name, draw(_NEAR.get(name, _JUNK) if how == "near" else _JUNK))


def _json_body(draw: DrawFn, pairs: Pairs) -> bytes:
    text = _json_object(pairs)
    raw = text.encode("utf-8", "surrogatepass")
    shape = draw(
        st.sampled_from(("plain",) * 12 + ("padded", "cut", "tail", "list", "bom", "utf-16", "latin", "bytes"))
    )
    return {
        "plain": lambda: raw,
        "padded": lambda: b" \r\n\t" + raw + b"\n",
        "cut": lambda: raw[: draw(st.integers(0, len(raw) - 1))],
        "tail": lambda: raw + draw(st.sampled_from((b"x", b"{}", b"\x00", b"]"))),
        "list": lambda: b"[" + raw + b"]",
        "bom": lambda: b"\xef\xbb\xbf" + raw,
        "utf-16": lambda: text.encode("utf-16", "surrogatepass"),
        "latin": lambda: text.encode("latin-1", "replace") + b"\xe9",
        "bytes": lambda: draw(st.binary(max_size=200)),
    }[shape]()


def _form_values(pairs: Pairs) -> list[tuple[str, bytes]]:
    """Return the fields as a form sends them: text as it is, everything else as its JSON."""
    values: list[tuple[str, bytes]] = []
    for name, text in pairs:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        shown = value if isinstance(value, str) else text
        values.append((name, shown.encode("utf-8", "surrogatepass")))
    return values


def _multipart(values: list[tuple[str, bytes]], boundary: bytes) -> bytes:
    body = b""
    for name, value in values:
        head = b'--%b\r\nContent-Disposition: form-data; name="%b"' % (boundary, name.encode("utf-8", "surrogatepass"))
        body += head + b"\r\n\r\n" + value + b"\r\n"
    return body + b"--%b--\r\n" % boundary


def _form_body(draw: DrawFn, pairs: Pairs) -> tuple[bytes, bytes]:
    """Return a content type and a body, which mostly fit each other."""
    values = _form_values(pairs)
    urlencoded = urlencode([(name.encode("utf-8", "surrogatepass"), value) for name, value in values]).encode()
    multipart = _multipart(values, b"bound")
    part = b"--bound\r\n" + draw(_PART_HEADS) + b"\r\n--bound--"
    usual = [(_FORM, urlencoded), (_MULTIPART + b"; boundary=bound", multipart)] * 5
    odd = [
        (_MULTIPART, multipart),
        (_MULTIPART + b"; boundary=other", multipart),
        (_MULTIPART + b"; boundary=bound", multipart[: draw(st.integers(0, 200))]),
        (_MULTIPART + b"; boundary=bound", part),
        (_FORM, draw(st.binary(max_size=200))),
        (b"application/json", _json_object(pairs).encode("utf-8", "surrogatepass")),
    ]
    return draw(st.sampled_from(usual + odd))


_FORM = b"application/x-www-form-urlencoded"
_MULTIPART = b"multipart/form-data"
_PART_HEADS = st.sampled_from(
    [
        b'Content-Disposition: form-data; name="prompt"\r\nContent-Transfer-Encoding: %b\r\n\r\n=\xff%%' % encoding
        for encoding in (b"base64", b"quoted-printable", b"x-uuencode", b"8bit", b"nonsense")
    ]
    + [
        b"Content-Disposition: form-data; name*=utf-8''prompt\r\n\r\np",
        b"Content-Disposition: form-data; name*0=pro; name*1=mpt\r\n\r\np",
        b'Content-Disposition: form-data; name="prompt"; filename="a.png"\r\nContent-Type: image/png\r\n\r\np',
        b"Content-Type: multipart/mixed; boundary=in\r\n\r\n--in\r\n\r\nx\r\n--in--",
        b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\ny",
        b"\r\n",
        b"",
    ]
)


# --- heads ------------------------------------------------------------------------------------------------------------

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND")
_TYPES: tuple[Headers, ...] = (
    (),
    ((b"Content-Type", b""),),
    ((b"Content-Type", b"APPLICATION/JSON; Charset=UTF-8"),),
    ((b"Content-Type", b"application/json; charset=utf-16"),),
    ((b"Content-Type", b"application/json;;;=\xff"),),
    ((b"Content-Type", b"text/plain"),),
    ((b"Content-Type", b"multipart/form-data"),),
    ((b"Content-Type", b"multipart/form-data; boundary="),),
    ((b"Content-Type", b"multipart/form-data; boundary*=utf-8''b%FF"),),
    ((b"Content-Type", b"application/x-www-form-urlencoded"),),
    ((b"Content-Type", b"\xff/\xfe"),),
    ((b"Content-Type", b"json" * 1000),),
)
_KEYS: tuple[Headers, ...] = (
    (),
    ((b"Authorization", b""),),
    ((b"Authorization", b"Bearer"),),
    ((b"Authorization", b"Bearer  \t "),),
    ((b"Authorization", b"bearer sk-test"),),
    ((b"Authorization", b"Basic c2s6dGVzdA=="),),
    ((b"Authorization", b"sk-test"),),
    ((b"Authorization", b"Bearer \xff\xfe"),),
    ((b"Authorization", b"Bearer " + b"k" * 7000),),
    ((b"Authorization", b"Basic x"), (b"X-API-Key", b"sk-test")),
    ((b"X-API-Key", b""),),
    ((b"X-API-Key", b" \t"),),
    ((b"X-API-Key", b"\xff"),),
    ((b"X-API-Key", b"sk-test"), (b"x-api-key", b"")),
    ((b"X-API-Key", b"sk-test"),),
    ((b"Authorization", b"Bearer sk-test"),),
)
_NAMES = (
    b"nowhere",
    b"%00",
    b"%FF",
    b"%2F",
    b"..%2f..",
    b".",
    b"..",
    b"%",
    b"%zz",
    b"%7Bname%7D",
    b"a" * 4000,
    b"%0d%0aX:1",
)
_QUERIES = (b"", b"", b"", b"?", b"?a=%FF&a", b"?task_id=x", b"?" + b"&" * 500, b"#fragment")


def _odd_head(draw: DrawFn, operation: Operation, known: str) -> tuple[str, bytes, Headers, bool]:
    """Draw a method, a target and a key, one of which may be odd, and whether the target exists."""
    at_fault = draw(st.sampled_from(("",) * 5 + ("method", "name", "key", "query")))
    method = draw(st.sampled_from(_METHODS)) if at_fault == "method" else operation.method
    target, exists = known.encode(), True
    if "{name}" in operation.path and (at_fault == "name" or draw(st.booleans())):
        name = draw(odd_names())
        before, after = operation.path.split("{name}")
        folder = "/".join(known.split("/")[: before.count("/")])
        target, exists = b"%b/%b%b" % (folder.encode(), name, after.encode()), False
    target += draw(st.sampled_from(_QUERIES)) if at_fault == "query" else b""
    keys = draw(st.sampled_from(_KEYS)) if at_fault == "key" else good_key(operation.provider)
    return method, target, keys, exists


def odd_names() -> SearchStrategy[bytes]:
    """Names, fit for a path, that nobody has given to anything."""
    return st.sampled_from(_NAMES) | st.binary(min_size=1, max_size=30).map(_quoted)


def _quoted(name: bytes) -> bytes:
    return quote_from_bytes(name, safe="").encode()


def good_key(provider: str) -> Headers:
    """Return the header with a key as `provider` wants it."""
    header = (b"X-API-Key", b"sk-test") if provider == "miragic" else (b"Authorization", b"Bearer sk-test")
    return (header,)


@st.composite
def sent(draw: DrawFn, operation: Operation, known: str) -> Sent:
    """Draw a request to the path of `operation`; `known` is a path of it that exists."""
    method, target, headers, exists = _odd_head(draw, operation, known)
    body = b""
    if operation.judge is not None:
        pairs = draw(_pairs(operation))
        if operation.form:
            content_type, body = _form_body(draw, pairs)
        else:
            content_type, body = b"application/json", _json_body(draw, pairs)
        usual: Headers = ((b"Content-Type", content_type),)
        headers += draw(st.sampled_from(_TYPES)) if draw(st.sampled_from((False,) * 7 + (True,))) else usual
    elif draw(st.booleans()):
        body = draw(st.binary(max_size=50))
    return Sent(
        operation=operation, request=Request(method=method, target=target, headers=headers, body=body), exists=exists
    )


# --- what is hardly HTTP ----------------------------------------------------------------------------------------------

_HEAD = b"POST /v1/images/generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\n"
MALFORMED = {
    "no method the parser knows": b"BREW /v1/avatar/list HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version of the future": b"GET /v1/avatar/list HTTP/7.3\r\nHost: x\r\n\r\n",
    "no version": b"GET /v1/avatar/list\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "bytes in the path": b"GET /v1/avatar/\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "bytes in an unknown path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "bytes in a header": b"GET /nowhere HTTP/1.1\r\nHost: \xff\r\nX-\xff: \xfe\r\nConnection: close\r\n\r\n",
    "a zero in a header": b"GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Y: \x00\r\nConnection: close\r\n\r\n",
    "a folded header": b"GET /nowhere HTTP/1.1\r\nHost: x\r\nX-Y: a\r\n b\r\nConnection: close\r\n\r\n",
    "a header without a colon": b"GET /nowhere HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "a header too long": _HEAD + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n",
    "a path too long": b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path made of a whole address": b"GET http://x:99999/v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a path made of an address cut short": b"GET http://[::1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a path that is a star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "two slashes": b"GET //evil/v1/avatar/list HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a tunnel": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "a key twice": _HEAD + b"Authorization: Bearer l\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    "a type twice": _HEAD + b"Content-Type: text/plain\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    "a host twice": _HEAD + b"Host: y\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
    "a length below zero": _HEAD + b"Content-Length: -1\r\n\r\n{}",
    "a length that is no number": _HEAD + b"Content-Length: 2_0\r\n\r\n{}",
    "a length beyond all numbers": _HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n{}",
    "two lengths": _HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": _HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk without a size": _HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than declared": _HEAD
    + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "an unknown transfer encoding": _HEAD + b"Transfer-Encoding: cloud\r\nConnection: close\r\n\r\n{}",
    "an unknown content encoding": _HEAD + b"Content-Encoding: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]",
    "gzip that is none": _HEAD + b"Content-Encoding: gzip\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]",
    "brotli that is none": _HEAD + b"Content-Encoding: br\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]",
    "deflate that is none": _HEAD + b"Content-Encoding: deflate\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]",
    "a body longer than declared": _HEAD + b"Content-Length: 2\r\n\r\n[]{}{}{}{}\r\n\r\n",
    "an odd expectation": _HEAD + b"Expect: miracles\r\nConnection: close\r\nContent-Length: 2\r\n\r\n[]",
    "a wish for another protocol": _HEAD + b"Upgrade: h2c\r\nConnection: Upgrade, close\r\nContent-Length: 2\r\n\r\n[]",
}
