"""What a provider would refuse is refused here, with the value and what is allowed, before anything is sent."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from purchases import KEY, PROMPT, picture, portrait, quick

from mirage_async import ImageRequest, Limits, MiladyClient, MiraClient, Mirage, MiragicClient, MirakoClient
from mirage_async.exceptions import ConfigurationError, InputError, MirageError
from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
NOWHERE = Path("/nonexistent/portrait.png")
TOKEN = '{"mirage":"job","provider":"miragic","kind":"image","id":"job-1","key":"k","model":null}'
NAN = float("nan")


@dataclass(frozen=True)
class Bad:
    """One bad input: the call that carries it, and what its refusal says (a regular expression)."""

    name: str
    call: Callable[..., Any]
    says: str
    kind: type[MirageError] = InputError

    def __repr__(self) -> str:
        return self.name


def _ratios() -> Iterator[Bad]:
    """An aspect ratio the provider does not have; the hub names the nearest."""
    yield Bad(
        "mirako ratio",
        lambda hub: hub.mirako.generate(PROMPT, aspect_ratio="21:9"),
        "aspect_ratio must be one of 16:9, 1:1, 4:3, 3:2, 2:3, 3:4, 9:16; got '21:9'",
    )
    yield Bad(
        "mirako ratio of a job", lambda hub: hub.mirako.submit(PROMPT, aspect_ratio="16x9"), "one of 16:9.*got '16x9'"
    )
    yield Bad(
        "milady ratio",
        lambda hub: hub.milady.generate(PROMPT, aspect_ratio="3:2"),
        "aspect_ratio must be one of 1:1, 16:9, 9:16, 4:3, 3:4, 21:9, 9:21; got '3:2'",
    )
    yield Bad(
        "mira size",
        lambda hub: hub.mira.generate(PROMPT, size="512x512"),
        "size must be one of 1024x1024, 1024x1536, 1536x1024, auto; got '512x512'",
    )
    for provider, ratio, nearest in (
        ("mirako", "21:9", "nearest 16:9 or 3:2"),
        ("mirako", "9:21", "nearest 9:16 or 2:3"),
        ("mira", "16:9", r"nearest 3:2 \(1536x1024\)"),
        ("mira", "5:4", r"nearest 3:2 \(1536x1024\) or 1:1 \(1024x1024\)"),
        ("milady", "3:2", "nearest 4:3 or 16:9"),
        ("milady", "5:4", "nearest 4:3 or 1:1"),
    ):
        yield Bad(
            f"hub {provider} ratio {ratio}",
            lambda hub, provider=provider, ratio=ratio: hub.generate(PROMPT, provider=provider, aspect_ratio=ratio),
            f"aspect_ratio must be one of .*got '{ratio}', {nearest}",
        )
    yield Bad(
        "hub miragic ratio",
        lambda hub: hub.generate(PROMPT, provider="miragic", aspect_ratio="9:1"),
        "between 256 and 2048 pixels a side.*got '9:1'",
    )
    for provider in ("mirako", "miragic", "mira", "milady"):
        for wrong in ("wide", "16/9", "0:1", "16:9\n", "-1:1", 1.5):
            yield Bad(
                f"hub {provider} ratio {wrong!r}",
                lambda hub, provider=provider, ratio=wrong: hub.submit(PROMPT, provider=provider, aspect_ratio=ratio),
                "aspect_ratio must .*got",
            )


def _pictures(tmp: Path) -> Iterator[Bad]:
    """Pictures that are too many, too small, too large, of the wrong kind, or none at all."""
    text, small, large = tmp / "notes.png", tmp / "small.png", tmp / "large.png"
    text.write_text("not a picture")
    small.write_bytes(picture("PNG", (100, 100)))
    large.write_bytes(portrait() + bytes(11 << 20))
    for name, number, call in (
        ("mirako", 5, lambda hub: hub.mirako.generate(PROMPT, images=[picture()] * 6)),
        ("mirako submit", 5, lambda hub: hub.mirako.submit(PROMPT, images=[picture()] * 6)),
        ("mira", 4, lambda hub: hub.mira.generate(PROMPT, reference_images=[picture()] * 6)),
        ("hub mirako", 5, lambda hub: hub.generate(PROMPT, provider="mirako", references=[picture()] * 6)),
        ("hub mira", 4, lambda hub: hub.submit(PROMPT, provider="mira", references=[picture()] * 6)),
        ("hub milady", 1, lambda hub: hub.submit(PROMPT, provider="milady", references=[picture()] * 6)),
    ):
        yield Bad(f"six references {name}", call, f"must be at most {number} pictures?.*got 6")
    yield Bad(
        "hub miragic references",
        lambda hub: hub.submit(PROMPT, provider="miragic", references=[picture()]),
        r"references must be one http\(s\) URL at miragic, with model 'kontext'; got 1 of type bytes",
    )
    yield Bad(
        "GIF reference",
        lambda hub: hub.mirako.generate(PROMPT, images=[GIF]),
        r"images\[0\] must be the bytes of a JPEG or PNG picture; got 42 bytes of image/gif",
    )
    yield Bad("GIF portrait", lambda hub: hub.mirako.build_avatar("Ada", GIF), "image must be .*JPEG or PNG.*image/gif")
    yield Bad(
        "reference behind a link",
        lambda hub: hub.mirako.generate(PROMPT, images=["https://a.example/b.png"]),
        r"images\[0\] must be the bytes of a JPEG or PNG picture; got a link",
    )
    yield Bad(
        "small portrait",
        lambda hub: hub.mirako.build_avatar("Ada", small),
        "image must be at least 512 x 512 pixels; got 100 x 100 pixels",
    )
    yield Bad(
        "large portrait",
        lambda hub: hub.mirako.build_avatar("Ada", large),
        "image must be at most 10485760 bytes; got 115[0-9]{5} bytes",
    )
    for name, take in (
        ("mirako", lambda hub, what: hub.mirako.generate(PROMPT, images=[what])),
        ("avatar", lambda hub, what: hub.mirako.build_avatar("Ada", what)),
        ("mira", lambda hub, what: hub.mira.generate(PROMPT, reference_images=[what])),
        ("milady", lambda hub, what: hub.milady.generate(PROMPT, source_image=what)),
        ("hub", lambda hub, what: hub.generate(PROMPT, provider="mirako", references=[what])),
    ):
        for what, value, says in (
            ("text file", text, r"must be a picture \(JPEG, PNG or WebP\); got Path\('.*notes.png'\), which is none"),
            ("missing file", NOWHERE, "must be a readable file; got '/nonexistent/portrait.png': No such file"),
            ("folder", tmp, "must be a readable file; got '.*', which is no regular file"),
            ("bare str", "photo.png", "for a file pass pathlib.Path"),
            ("password file", "/etc/passwd", r"must be a data URL or an http\(s\) URL where it is a str; got <str, 11"),
            ("half a data URL", "data:image/png;base64,@@@", "must be a whole data URL; got <data URL, 25 characters>"),
            ("empty bytes", b"", "must be a picture.*got <0 bytes>"),
            ("number", 7, "must be bytes, a pathlib.Path, .*; got int"),
        ):
            yield Bad(f"{name} {what}", lambda hub, take=take, value=value: take(hub, value), says)
    yield Bad(
        "one picture instead of several",
        lambda hub: hub.mirako.generate(PROMPT, images=picture()),
        r"images must be a sequence of pictures; got a single bytes: write \[picture\]",
    )


def _prompts() -> Iterator[Bad]:
    """A prompt that is empty, or longer than the provider takes; its text is never repeated."""
    calls: dict[str, Callable[..., Any]] = {
        "mirako generate": lambda hub, prompt: hub.mirako.generate(prompt),
        "mirako submit": lambda hub, prompt: hub.mirako.submit(prompt),
        "miragic": lambda hub, prompt: hub.miragic.generate(prompt),
        "mira": lambda hub, prompt: hub.mira.generate(prompt),
        "mira submit": lambda hub, prompt: hub.mira.submit(prompt),
        "milady": lambda hub, prompt: hub.milady.generate(prompt),
        "milady submit": lambda hub, prompt: hub.milady.submit(prompt),
    }
    for name, call in calls.items():
        allowed = "1 to 4000 characters of text" if name.startswith(("mira ", "milady")) or name == "mira" else ".*text"
        for what, value, got in (
            ("empty", "", "empty text"),
            ("blank", " \n", "blank text"),
            ("None", None, "NoneType"),
        ):
            yield Bad(
                f"{name} {what} prompt",
                lambda hub, call=call, value=value: call(hub, value),
                f"prompt must be {allowed}; got .*{got}",
            )
        if "4000" in allowed:
            yield Bad(
                f"{name} long prompt",
                lambda hub, call=call: call(hub, "x" * 4001),
                "prompt must be 1 to 4000 characters of text; got 4001 characters",
            )


def _numbers() -> Iterator[Bad]:
    """Numbers out of range, and what is no number."""
    for side in ("width", "height"):
        for value in (255, 2049, 0, -1, 512.0, "512", True, None):
            yield Bad(
                f"{side} {value!r}",
                lambda hub, side=side, value=value: hub.miragic.submit(PROMPT, **{side: value}),
                f"{side} must be a whole number from 256 to 2048; got {value!r}",
            )
    for value in (0, 5, -1, True, 2.0, "2"):
        for provider, allowed in (
            ("mira", "from 1 to 4"),
            ("milady", "from 1 to 4"),
            ("mirako", "1"),
            ("miragic", "1"),
        ):
            if value is not True or provider in {"mira", "milady"}:
                yield Bad(
                    f"hub {provider} n={value!r}",
                    lambda hub, provider=provider, value=value: hub.submit(PROMPT, provider=provider, n=value),
                    f"(n|num_images) must be .*{allowed}.*; got {value!r}",
                )
        yield Bad(
            f"mira n={value!r}",
            lambda hub, value=value: hub.mira.generate(PROMPT, n=value),
            f"n must be a whole number from 1 to 4; got {value!r}",
        )
        yield Bad(
            f"milady num_images={value!r}",
            lambda hub, value=value: hub.milady.generate(PROMPT, num_images=value),
            f"num_images must be a whole number from 1 to 4; got {value!r}",
        )
    for value in (1 << 31, -(1 << 31) - 1, True, 1.0, "1", 10**100):
        for name, call in (
            ("generate", lambda hub, seed: hub.mirako.generate(PROMPT, seed=seed)),
            ("submit", lambda hub, seed: hub.mirako.submit(PROMPT, seed=seed)),
            ("hub", lambda hub, seed: hub.generate(PROMPT, provider="mirako", seed=seed)),
        ):
            yield Bad(
                f"{name} seed {value!r:.20}",
                lambda hub, call=call, value=value: call(hub, value),
                f"seed must be a whole number from -2147483648 to 2147483647; got {value!r:.20}".replace(
                    f"{10**100!r:.20}", "a whole number of 333 bits"
                ),
            )
    for value in (NAN, -1, 0, float("inf"), True, "5", 31 * 24 * 3600):
        for name, call in (
            ("mirako", lambda hub, wait: hub.mirako.submit(PROMPT, max_wait=wait)),
            ("avatar", lambda hub, wait: hub.mirako.build_avatar("Ada", portrait(), max_wait=wait)),
            ("miragic", lambda hub, wait: hub.miragic.generate(PROMPT, max_wait=wait)),
            ("hub mirako", lambda hub, wait: hub.generate(PROMPT, provider="mirako", max_wait=wait)),
            ("hub miragic", lambda hub, wait: hub.submit(PROMPT, provider="miragic", max_wait=wait)),
        ):
            yield Bad(
                f"{name} max_wait={value!r}",
                lambda hub, call=call, value=value: call(hub, value),
                f"max_wait must be above 0 and at most 2592000 seconds; got {value!r}",
            )


def _combinations() -> Iterator[Bad]:
    """Parameters that do not go together, or that the provider does not have."""
    yield Bad("no provider", lambda hub: hub.generate(PROMPT), "provider must be one of 'mirako'.*; got None")
    for call in (Mirage.generate, Mirage.submit):
        yield Bad(
            f"unknown provider {call.__name__}",
            lambda hub, call=call: call(hub, PROMPT, provider="dalle"),
            "provider must be one of 'mirako', 'miragic', 'mira', 'milady'; got 'dalle'",
        )
    yield Bad(
        "unknown provider in a request",
        lambda hub: hub.submit(ImageRequest(prompt=PROMPT, provider="Mira")),
        "provider must be one of .*; got 'Mira'",
    )
    yield Bad(
        "image_url without kontext",
        lambda hub: hub.miragic.submit(PROMPT, image_url="https://a.example/b.jpg"),
        "model must be 'kontext' where image_url is given; got 'flux'",
    )
    yield Bad(
        "hub reference without kontext",
        lambda hub: hub.submit(PROMPT, provider="miragic", references=["https://a.example/b.jpg"]),
        "model must be 'kontext' where image_url is given; got 'flux'",
    )
    for provider in ("mirako", "miragic", "mira", "milady"):
        yield Bad(
            f"{provider} size and ratio",
            lambda hub, provider=provider: hub.submit(PROMPT, provider=provider, size="1024x1024", aspect_ratio="1:1"),
            "give size or aspect_ratio, not both; got '1024x1024' and '1:1'",
        )
        yield Bad(
            f"{provider} unknown option",
            lambda hub, provider=provider: hub.submit(PROMPT, provider=provider, options={"steps": 30}),
            f"options must be among .* at {provider}; got 'steps'",
        )
    unsupported: dict[tuple[str, str], Any] = {
        ("mirako", "size"): "1024x1024",
        ("mirako", "model"): "flux",
        ("miragic", "seed"): 0,
        ("mira", "seed"): 0,
        ("mira", "model"): "flux",
        ("mira", "max_wait"): 5.0,
        ("milady", "seed"): 0,
        ("milady", "size"): "1024x1024",
        ("milady", "max_wait"): 5.0,
    }
    for (provider, name), value in unsupported.items():
        yield Bad(
            f"{provider} has no {name}",
            lambda hub, provider=provider, name=name, value=value: hub.submit(
                PROMPT, provider=provider, **{name: value}
            ),
            f"{provider} has no {name}; got {value!r}: .+",
        )
    yield Bad(
        "option that repeats",
        lambda hub: hub.submit(PROMPT, provider="miragic", size="512x512", options={"width": 300}),
        "options repeats width, which is already given as 512; got 300",
    )
    yield Bad("model", lambda hub: hub.miragic.submit(PROMPT, model="sdxl"), "model must be one of flux.*; got 'sdxl'")
    yield Bad("quality", lambda hub: hub.mira.generate(PROMPT, quality="best"), "one of low, .*; got 'best'")
    yield Bad("style", lambda hub: hub.milady.generate(PROMPT, style_preset="x"), "style_preset must be one of .*'x'")
    yield Bad("avatar name", lambda hub: hub.mirako.build_avatar("", portrait()), "name must be 1 to 200 characters")
    for url in ("ftp://a.example/b", "a.example/b.jpg", "https://", "http://me@a.example/"):
        yield Bad(
            f"image_url {url}",
            lambda hub, url=url: hub.miragic.submit(PROMPT, model="kontext", image_url=url),
            r"image_url must be an absolute http\(s\) URL .*; got [0-9]+ characters",
        )
        yield Bad(
            f"webhook {url}",
            lambda hub, url=url: hub.mirako.submit(PROMPT, webhook=(url, None)),
            r"webhook url must be an absolute http\(s\) URL",
        )


def _handles() -> Iterator[Bad]:
    """Tokens and ids that are none, or somebody else's."""
    yield Bad(
        "another provider's token",
        lambda hub: hub.mirako.job(TOKEN),
        "token must be one of a mirako job; got one of 'miragic'",
    )
    yield Bad(
        "another kind",
        lambda hub: hub.miragic.job(TOKEN, kind="avatar"),
        "kind must be 'image' for this token; got 'avatar'",
    )
    for name, token in {
        "junk": '{"mirage": ',
        "other JSON": '{"id": "a"}',
        "number in it": TOKEN.replace('"job-1"', "7"),
        "deep": '{"a":' * 200,
        "long": TOKEN.replace("job-1", "a" * 3000),
    }.items():
        for where in ("hub", "mirako"):
            yield Bad(
                f"{name} token at {where}",
                lambda hub, where=where, token=token: (hub if where == "hub" else hub.mirako).job(token),
                r"token must be what Job\.token\(\) returned; got '.{5}",
            )
    yield Bad(
        "bare id at the hub", lambda hub: hub.job("job-1"), "got 'job-1' .for a bare id use the provider's client"
    )
    yield Bad(
        "token of nobody",
        lambda hub: hub.job(TOKEN.replace("miragic", "dalle")),
        "provider must be one of.*got 'dalle'",
    )
    yield Bad("token with a slash", lambda hub: hub.job(TOKEN.replace("job-1", "../a")), "1 to 128 letters.*got '../a'")
    for bad in ("a/b", "../avatar", "a?b", "a b", "", "-a", "é", "a\n", "x" * 129):
        says = "must be 1 to 128 letters, digits, '_' and '-', beginning with a letter or digit; got '"
        yield Bad(f"image id {bad!r:.9}", lambda hub, bad=bad: hub.mirako.job(bad), f"token_or_id {says}")
        yield Bad(f"job id {bad!r:.9}", lambda hub, bad=bad: hub.miragic.job(bad), f"token_or_id {says}")
        yield Bad(f"avatar id {bad!r:.9}", lambda hub, bad=bad: hub.mirako.get_avatar(bad), f"avatar_id {says}")
    yield Bad("unknown kind", lambda hub: hub.mirako.job("job-1", kind="video"), "kind must be .*; got 'video'")
    yield Bad("job of a blocking provider", lambda hub: hub.mira.job("job-1"), "it answers with the picture itself")


async def _called(bad: Bad, hub: Mirage) -> None:
    result = bad.call(hub)
    if hasattr(result, "__await__"):
        await result


async def _refused(bad: Bad) -> None:
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            Mirage(base_urls=sandbox.base_urls, scheduler=quick()) as mirage,
        ):
            with pytest.raises(bad.kind, match=bad.says) as caught:
                await _called(bad, mirage)
            assert type(caught.value) is bad.kind
            assert isinstance(caught.value, ValueError)
            assert caught.value.billed == "no"
            assert PROMPT not in str(caught.value)
            assert sandbox.requests == []
            assert all(not client.jobs for client in (mirage.mirako, mirage.miragic, mirage.mira, mirage.milady))


@pytest.mark.parametrize("bad", [*_ratios(), *_prompts(), *_numbers()], ids=repr)
async def test_a_value_out_of_range_is_refused_before_anything_is_sent(bad: Bad) -> None:
    """The error shows the value and the range, and no provider has seen a request."""
    await _refused(bad)


@pytest.mark.parametrize("bad", [*_combinations(), *_handles()], ids=repr)
async def test_what_does_not_fit_is_refused_before_anything_is_sent(bad: Bad) -> None:
    """Nothing is dropped or rounded in silence: the error says what to do instead."""
    await _refused(bad)


async def test_what_is_no_usable_picture_is_refused_before_anything_is_sent(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Pictures are looked at before they are sent; a `str` is never opened as a file."""
    for bad in _pictures(tmp_path):
        with subtests.test(bad.name):
            await _refused(bad)


@pytest.mark.parametrize("provider", ["mirako", "miragic"])
async def test_true_is_not_one_picture(provider: str) -> None:
    """A bool is no number of pictures, whatever it is equal to."""
    await _refused(Bad("n=True", lambda hub: hub.submit(PROMPT, provider=provider, n=True), "n must be .*; got True"))


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "3"])
def test_limits_are_whole_numbers_above_zero(value: Any) -> None:
    """A limit nobody could work under is refused."""
    for name in ("jobs", "polls"):
        with pytest.raises(InputError, match=f"Limits.{name} must be a whole number of at least 1.*; got {value!r}"):
            Limits(**{name: value})


@pytest.mark.parametrize("value", [0, -1, True, NAN, float("inf"), "3"])
def test_a_rate_is_a_number_above_zero(value: Any) -> None:
    """Status calls per second."""
    with pytest.raises(InputError, match=f"polls_per_second must be a number above 0.*; got {value!r}"):
        Limits(polls_per_second=value)


@pytest.mark.parametrize("client", [MirakoClient, MiragicClient, MiraClient, MiladyClient])
def test_a_client_without_a_key_is_refused_unless_the_provider_is_on_this_machine(client: type[Any]) -> None:
    """The message names the variable; a sandbox needs no key."""
    name = client.provider.upper()
    with pytest.raises(ConfigurationError, match=f"no {client.provider} key: set {name}_API_KEY.* or pass api_key"):
        client()
    with pytest.raises(ConfigurationError, match=r"no .* key"):
        client(base_url="https://gateway.example")
    for loopback in ("http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9", "https://127.8.8.8"):
        assert client(base_url=loopback).provider == client.provider


@pytest.mark.parametrize(
    "lookalike",
    [
        "http://127.0.0.1.evil.example",
        "http://127.evil.example",
        "http://localhost.evil.example",
    ],
)
def test_a_host_that_only_looks_like_this_machine_needs_a_key(lookalike: str) -> None:
    """Loopback is an address, not the beginning of a name."""
    with pytest.raises(ConfigurationError, match="no mira key"):
        MiraClient(base_url=lookalike)


@pytest.mark.parametrize(
    "url",
    ["", "mirako.co", "ftp://mirako.co", "https://", "https://me:pw@mirako.co", "https://mirako.co?a=b", "http://["],
)
def test_a_base_url_is_an_absolute_web_address(url: str) -> None:
    """Anything else is a matter of configuration; an empty one counts as not given."""
    if not url:
        assert "mirako.co" in repr(MirakoClient(KEY, base_url=url))
        return
    with pytest.raises(
        ConfigurationError, match=r"base_url must be an absolute http\(s\) address without user, query and fragment"
    ):
        MirakoClient(KEY, base_url=url)


@pytest.mark.parametrize("options", [{"timeout": 0}, {"timeout": NAN}, {"timeout": 3601}, {"timeout": True}])
def test_a_timeout_is_at_most_an_hour(options: Any) -> None:
    """Seconds, above 0."""
    with pytest.raises(InputError, match=r"timeout must be above 0 and at most 3600 seconds.*; got"):
        MiraClient(KEY, **options)


@pytest.mark.parametrize("value", [-1, -0.5, 3601, NAN, True, "5"])
def test_the_longest_retry_after_is_zero_to_an_hour(value: Any) -> None:
    """0 turns waiting off; anything below it is a mistake."""
    with pytest.raises(InputError, match=f"max_retry_after must be 0 .*3600 seconds; got {value!r}"):
        MiraClient(KEY, max_retry_after=value)


@pytest.mark.parametrize("argument", ["api_keys", "base_urls", "limits"])
def test_a_hub_s_mappings_name_providers_only(argument: str) -> None:
    """A misspelt provider is told, instead of being ignored."""
    with pytest.raises(InputError, match=f"{argument} must be by provider, one of .*; got 'mirakko'"):
        Mirage(**{argument: {"mirakko": KEY}})  # type: ignore[arg-type]  # the mappings have different values


def test_a_client_s_limits_are_limits() -> None:
    """A bare number says nothing about what it limits."""
    with pytest.raises(InputError, match=r"limits must be a Limits\(\.\.\.\); got 3"):
        MiraClient(KEY, limits=3)  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize("path", ["", "images", "/a/../b", "//evil.example/x", "/a?b", "/a b", "https://evil.example"])
def test_mira_s_path_stays_on_its_host(path: str) -> None:
    """A path that could lead elsewhere would take the key along."""
    with pytest.raises(InputError, match="path must be a path that begins with '/'"):
        MiraClient(KEY, path=path)


async def test_a_fresh_wait_is_checked_like_the_first() -> None:
    """`Job.result` takes no nonsense either, and an attached job asks nothing before its arguments are right."""
    with anyio.fail_after(30):
        async with Sandbox(durations=60.0) as sandbox, MirakoClient(base_url=sandbox.url, scheduler=quick()) as mirako:
            job = await mirako.submit(PROMPT)
            for wait in (NAN, -1, 0, True):
                with pytest.raises(InputError, match=f"max_wait must be above 0 .*; got {wait!r}"):
                    await job.result(max_wait=wait)
                with pytest.raises(InputError, match=f"max_wait must be above 0 .*; got {wait!r}"):
                    mirako.job(job.token(), max_wait=wait)
