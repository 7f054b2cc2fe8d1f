"""Mirako's avatars: building, listing, and appearing in pictures."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from calling import BEARER, Caller, average, calling, encoded, plain_base64

pytestmark = pytest.mark.anyio

BUILD = "/v1/avatar/async_build"


async def build(caller: Caller, data: bytes) -> Any:
    """Post a portrait and return the whole reply."""
    return await caller.post(BUILD, {"name": "Ada", "image": plain_base64(data)})


async def test_an_avatar_is_pending_then_building_then_ready() -> None:
    """An avatar has themes from the moment it is ready and null before."""
    async with calling(durations={"mirako.avatar": 8}) as caller:
        avatar_id = (await build(caller, encoded())).json["data"]["avatar_id"]
        seen = []
        for step in (0, 3, 5):
            caller.clock.advance(step)
            data = (await caller.get(f"/v1/avatar/{avatar_id}", BEARER)).json["data"]
            seen.append((data["status"], bool(data["themes"])))
        assert seen == [("PENDING", False), ("BUILDING", False), ("READY", True)]
        assert (data["id"], data["name"], data["created_at"]) == (avatar_id, "Ada", "2023-11-14T22:30:00Z")
        assert caller.sandbox.jobs[avatar_id].kind == "avatar"


async def test_the_list_shows_every_avatar() -> None:
    """The list is null while there are no avatars and holds the same objects as the single view after that."""
    async with calling() as caller:
        assert (await caller.get("/v1/avatar/list", BEARER)).json == {"data": None}
        avatar_id = (await build(caller, encoded())).json["data"]["avatar_id"]
        (listed,) = (await caller.get("/v1/avatar/list", BEARER)).json["data"]
        assert listed == (await caller.get(f"/v1/avatar/{avatar_id}", BEARER)).json["data"]


async def test_a_ready_avatar_named_in_a_prompt_tints_the_picture() -> None:
    """The portrait's colour shows once the avatar is ready, and not a moment before."""
    async with calling(durations={"mirako.avatar": 1000.0, "mirako.image": 0.0}) as caller:
        portrait = encoded(colour="red", kind="JPEG", size=(1024, 576))
        avatar_id = (await build(caller, portrait)).json["data"]["avatar_id"]
        fields = {"prompt": f"{avatar_id} at the ocean", "seed": 1}
        early = (await caller.post("/v1/image/generate", fields)).json["data"]["image"]
        caller.clock.advance(1000)
        late = (await caller.post("/v1/image/generate", fields)).json["data"]["image"]
        assert average(base64.b64decode(late))[0] > average(base64.b64decode(early))[0] + 20


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("data:image/png;base64,AAAA", "standard base64 without a data URL"),
        (plain_base64(b"no picture"), "JPG or PNG"),
        (plain_base64(encoded(kind="GIF")), "JPG or PNG"),
        (plain_base64(encoded((600, 511))), "at least 512x512 pixels (is 600x511)"),
        (plain_base64(bytes(10 * 2**20 + 1)), "at most 10 MB"),
    ],
)
async def test_an_unsuitable_portrait_is_refused(image: str, message: str) -> None:
    """Format, size in pixels and size in bytes are checked on the picture itself; nothing is charged."""
    async with calling() as caller:
        reply = await caller.post(BUILD, {"name": "Ada", "image": image})
        assert reply.status == 422
        assert message in reply.json["detail"]
        assert caller.sandbox.statistics().purchases == {}


async def test_only_strict_mode_wants_a_square_or_wide_portrait() -> None:
    """A 3:2 portrait passes in lenient mode and names the rule in strict mode; square passes both."""
    async with calling() as caller:
        assert (await build(caller, encoded((900, 600)))).status == 200
    async with calling(strict=True) as caller:
        assert "square or 16:9" in (await build(caller, encoded((900, 600)))).json["detail"]
        assert (await build(caller, encoded())).status == 200


async def test_an_unknown_avatar_is_not_found() -> None:
    """Asking for an avatar that does not exist is 404, and so is asking for a task as if it were one."""
    async with calling() as caller:
        nobody = await caller.get("/v1/avatar/nobody", BEARER)
        assert (nobody.status, nobody.json["errors"][0]["location"]) == (404, "path.avatar_id")
        task = (await caller.post("/v1/image/async_generate", {"prompt": "p"})).json["data"]["task_id"]
        assert (await caller.get(f"/v1/avatar/{task}", BEARER)).status == 404
