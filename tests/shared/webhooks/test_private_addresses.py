"""A name that leads to a private address gets no notice, whenever it leads there."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shared.fetching.webhooks import Posts
from shared.retry.errors import PermanentError
from tests.shared.fetching.site import Names
from tests.shared.webhooks.receiver import receiving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def posting(names: Names, *hosts: str) -> AsyncIterator[Posts]:
    posts = Posts(hosts, timeout=10.0, resolver=names)
    await posts.open()
    try:
        yield posts
    finally:
        await posts.close()


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["::1"], ["169.254.169.254"], ["10.0.0.7"], ["::ffff:127.0.0.1"]]
)
async def test_a_name_with_a_private_address_is_refused_at_the_socket(addresses: list[str]) -> None:
    async with receiving() as receiver, posting(Names({"hooks.example.org": [addresses]})) as posts:
        # the name alone says nothing, so that it can be registered
        posts.check_with_host(named(receiver.url))
        with pytest.raises(PermanentError, match=r"an address that is not public.*\(hooks\.example\.org\)"):
            await posts.post(named(receiver.url), b"{}", {})
    assert receiver.got == []


async def test_a_name_that_was_registered_and_became_private_is_refused_later() -> None:
    names = Names({"hooks.example.org": [["127.0.0.1"], ["127.0.0.1"]]})
    async with receiving() as receiver:
        async with posting(names, "hooks.example.org") as trusting:
            # whoever names the host in WEBHOOK_HOSTS means it
            await trusting.post(named(receiver.url), b"{}", {})
        async with posting(names) as posts:
            with pytest.raises(PermanentError, match="not public"):
                await posts.post(named(receiver.url), b"{}", {})
    assert len(receiver.got) == 1


def named(url: str) -> str:
    """The receiver's address by a name."""
    return url.replace("127.0.0.1", "hooks.example.org")
