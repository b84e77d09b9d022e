"""``python -m sandbox.sharepoint``: the emulator as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shlex
import signal
import ssl
import sys
from pathlib import Path

import msgspec
from aiohttp import web

from sandbox.sharepoint.app import ADMINISTRATORS_TOKEN, Options, build
from sandbox.sharepoint.process import Ready
from sandbox.sharepoint.shipped import HOST, LIBRARY, SITE_PATH
from sandbox.sharepoint.store import FolderInUseError
from sandbox.sharepoint.tokens import CLIENT_ID, CLIENT_SECRET, LIFETIME, TENANT_ID


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.sharepoint",
        description="A local Microsoft Graph with one SharePoint site. Prints one JSON line when ready.",
    )
    parser.add_argument("--folder", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--port", type=int, default=0, help="0 (default): a free one")
    parser.add_argument("--ready-file", type=Path, help="gets the JSON line too, once it is ready")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="aligned fragments enforced, sessions expire, now and then 429, 503, slow answers, stale eTags",
    )
    parser.add_argument(
        "--tenant-mode",
        action="store_true",
        help="the client has Sites.Selected only and must be granted the site; adds a library Eingang",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what goes wrong by chance")
    parser.add_argument("--budget", type=int, help="resource units per minute before 429; 0: no limit")
    parser.add_argument("--token-seconds", type=int, default=LIFETIME, help="how long a token is good")
    parser.add_argument("--session-seconds", type=float, help="how long an idle upload session lives")
    parser.add_argument("--tls-cert", type=Path, help="speak https with this certificate (PEM)")
    parser.add_argument("--tls-key", type=Path, help="its key (PEM), if that is in a file of its own")
    return parser.parse_args()


def _tls(arguments: argparse.Namespace) -> ssl.SSLContext | None:
    """For clients that take no other authority than one with https, such as azure-identity."""
    if arguments.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(arguments.tls_cert, arguments.tls_key)
    return context


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    app = build(
        arguments.folder,
        Options(
            strict=arguments.strict,
            tenant_mode=arguments.tenant_mode,
            seed=arguments.seed,
            budget=arguments.budget,
            token_seconds=arguments.token_seconds,
            session_seconds=arguments.session_seconds,
        ),
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        tls = _tls(arguments)
        site = web.TCPSite(runner, "127.0.0.1", arguments.port, ssl_context=tls)
        await site.start()
        _announce(runner.addresses[0][1], app[ADMINISTRATORS_TOKEN], arguments)
        await asyncio.to_thread(_warm_up)
        await stop.wait()
    finally:
        await runner.cleanup()


def _announce(port: int, admin_token: str, arguments: argparse.Namespace) -> None:
    origin = f"{'https' if arguments.tls_cert else 'http'}://127.0.0.1:{port}"
    ready = Ready(
        url=f"{origin}/v1.0",
        authority=origin,
        site=f"{HOST}:/{SITE_PATH}",
        library=LIBRARY,
        admin=f"{origin}/_erni",
        tenant_id=TENANT_ID,
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        admin_token=admin_token,
        folder=str(arguments.folder.absolute()),
    )
    line = msgspec.json.encode(ready)
    exports = {**ready.settings(), "ADMIN_TOKEN": admin_token}
    (arguments.folder / "env").write_text(
        "".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports.items())
    )
    if arguments.ready_file is not None:
        new = arguments.ready_file.with_name(arguments.ready_file.name + ".new")
        new.write_bytes(line + b"\n")
        new.replace(arguments.ready_file)
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()


def _warm_up() -> None:
    """Load what reads pictures before the first upload waits for it."""
    import PIL.Image

    PIL.Image.preinit()


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    arguments = _arguments()
    try:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(KeyboardInterrupt):
            try:
                import uvloop
            except ImportError:
                asyncio.run(_serve(arguments))
            else:
                uvloop.run(_serve(arguments))
    except (FolderInUseError, OSError) as error:
        sys.stderr.write(f"the Graph emulator cannot start: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
