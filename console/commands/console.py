"""`erni console`: a link that signs in to the web console, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console.arguments import describe

if TYPE_CHECKING:
    import argparse

    from redis.asyncio import Redis

    from console.output import Output
    from shared.operations.access_keys import Role
    from shared.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni console`."""
    from console.pages.desk import RANKS

    describe(
        parser,
        "Print a link that signs in to the web console of the gateway. It works once and for 15 minutes, so"
        " it is worth nothing to whoever finds it later. With a key (erni key add) people need no link.",
        "erni console",
        "erni console --role viewer",
        run=console,
    )
    parser.add_argument("--role", choices=tuple(RANKS), default="admin", help="what the link may do")


async def console(options: argparse.Namespace, output: Output) -> int:
    """Print the link."""
    from console import system
    from console.explain import redis_client
    from shared.operations.sign_in import TICKET_SECONDS

    settings = system.load()
    async with redis_client(settings) as redis:
        await system.require_chosen(redis, settings)
        link = await link_for(redis, settings, options.role)
    output.answer({"link": link, "role": options.role, "seconds": TICKET_SECONDS})
    if not output.as_json:
        output.say(link)
        output.warn(f"it signs in as {options.role}, once, within {TICKET_SECONDS // 60} minutes")
    return 0


async def link_for(redis: Redis, settings: Settings, role: Role) -> str:
    """Return a link that signs in once. Its secret stands behind the #, which browsers send to nobody."""
    from console.person import person
    from shared.operations import sign_in

    ticket = await sign_in.make_ticket(redis, person().name, role)
    everywhere = settings.http_host in ("", "0.0.0.0", "::")  # noqa: S104  # compared, not bound to
    host = "127.0.0.1" if everywhere else settings.http_host
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{settings.http_port}/login#{ticket}"
