"""The emulator as a process: quick to start, clean to stop, and whole after a kill."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import psutil
import pytest
from azure.identity.aio import ClientSecretCredential

from sandbox.sharepoint.process import GraphStartError, Ready, RunningGraph, start_graph
from sandbox.sharepoint.store import FolderInUseError, Store
from sandbox.sharepoint.tokens import SCOPE
from tests.sandbox.sharepoint.client import SITE, Graph
from tests.shared.sharepoint.certificates import self_signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


async def connect(session: aiohttp.ClientSession, running: RunningGraph) -> Graph:
    """A signed-in client of a running emulator."""
    graph = Graph(session, running.authority)
    await graph.sign_in()
    await graph.use_library()
    return graph


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session."""
    async with aiohttp.ClientSession() as opened:
        yield opened


async def test_it_is_ready_within_a_second_and_stops_cleanly(
    folder: Path, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    ready_file = tmp_path / "ready.json"
    running = await start_graph(folder, args=("--ready-file", str(ready_file)))
    # its own work, not the wall clock: the machine may be busy with other things
    work = psutil.Process(running.process.pid).cpu_times()
    assert work.user + work.system < 1
    assert msgspec.json.decode(ready_file.read_bytes(), type=Ready) == running.ready
    assert running.url == f"{running.authority}/v1.0"
    assert (running.ready.site, running.ready.library) == ("localhost:/sites/Bau", "Referenzfotos")
    exports = {f"export {name}={value}" for name, value in running.settings().items()}
    written = set((folder / "env").read_text().splitlines())
    assert written == exports | {f"export ADMIN_TOKEN={running.ready.admin_token}"}
    graph = await connect(session, running)
    assert (await graph.get(SITE)).status == 200
    administrator = {"Authorization": f"Bearer {running.ready.admin_token}"}
    assert (await graph.get(f"{SITE}:/permissions", headers=administrator)).status == 200
    assert await running.stop() == 0


async def test_a_photo_of_two_megabytes_takes_less_than_thirty_milliseconds(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    running = await start_graph(folder)
    graph = await connect(session, running)
    times: list[float] = []
    while not times or min(times) >= 0.03:  # one is enough: the machine may be busy with other things
        assert len(times) < 40, min(times)
        started = time.perf_counter()
        assert (await graph.upload(f"{len(times)}.jpg", bytes(2_000_000))).status == 201
        times.append(time.perf_counter() - started)
    await running.stop()


async def test_everything_is_there_after_a_restart_on_the_same_port(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    running = await start_graph(folder)
    graph = await connect(session, running)
    item = (await graph.upload("x/a.jpg", b"photo")).json
    await graph.patch(f"{graph.drive}/items/{item['id']}/listItem/fields", {"Ort": "Goldau"})
    before = (await graph.get(f"{graph.drive}/items/{item['id']}?$expand=listItem($expand=fields)")).json
    effects = running.effects()
    await running.kill()

    again = await start_graph(folder, args=("--port", str(running.port)))
    after = (await graph.get(f"{graph.drive}/items/{item['id']}?$expand=listItem($expand=fields)")).json
    assert after == before | {"@microsoft.graph.downloadUrl": after["@microsoft.graph.downloadUrl"]}
    assert (await graph.upload("b.jpg")).status == 201
    assert again.effects()[: len(effects)] == effects
    assert again.effects()[-1].seq == effects[-1].seq + 1
    await again.stop()


async def test_a_request_in_hand_does_not_hold_up_the_end(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    running = await start_graph(folder)
    graph = await connect(session, running)
    await graph.admin("POST", "/fault", {"kind": "slow", "delay": 60})
    waiting = asyncio.create_task(graph.get(SITE))
    while not (await graph.admin("GET", "/fault"))["faults"][0]["hits"]:
        pass
    assert await running.stop() == 0
    with pytest.raises(aiohttp.ClientError):
        await waiting


async def test_azure_identity_gets_its_token_over_tls(folder: Path, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path / "tls.pem")
    running = await start_graph(folder, args=("--tls-cert", str(certificate)))
    async with ClientSecretCredential(
        running.ready.tenant_id,
        running.ready.client_id,
        running.ready.client_secret,
        authority=running.authority,
        disable_instance_discovery=True,
        connection_verify=str(certificate),
    ) as credential:
        token = await credential.get_token(SCOPE)
    tls = ssl.create_default_context(cafile=str(certificate))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        graph = Graph(session, running.authority)
        graph.token = token.token
        await graph.use_library()
        item = (await graph.upload("a.jpg", b"photo")).json
        content = await graph.call("GET", item["@microsoft.graph.downloadUrl"], token=False)
        assert content.data == b"photo"
    await running.stop()


async def test_a_folder_serves_one_emulator(folder: Path) -> None:
    running = await start_graph(folder)
    with pytest.raises(GraphStartError, match="exit code 1"):
        await start_graph(folder)
    await running.stop()


async def test_killed_under_load_it_loses_and_halves_nothing(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    acknowledged: dict[str, bytes] = {}
    port = "0"
    for life in range(3):
        running = await start_graph(folder, args=("--port", port))
        port = str(running.port)
        graph = await connect(session, running)
        enough = asyncio.Event()

        async def upload(graph: Graph, life: int, worker: int, enough: asyncio.Event) -> None:
            for number in itertools.count():
                name = f"{life}-{worker}-{number % 7}.jpg"  # replaced again and again
                data = f"{name} {number} ".encode() * 2_000
                try:
                    reply = await graph.upload(name, data)
                    await graph.patch(f"{graph.drive}/root:/{name}:/listItem/fields", {"Ort": str(number)})
                except (aiohttp.ClientError, OSError):
                    return
                assert reply.status in (200, 201)
                acknowledged[name] = data
                if number == 20:
                    enough.set()

        workers = [asyncio.create_task(upload(graph, life, worker, enough)) for worker in range(4)]
        await enough.wait()
        await running.kill()
        await asyncio.gather(*workers)

    store = Store(folder)
    effects = list(store.effects)
    try:
        assert [effect.seq for effect in effects] == sorted({effect.seq for effect in effects})
        last = {effect.name: effect for effect in effects if effect.effect == "upload"}
        files = {path.name: path for path in (folder / "library" / "Referenzfotos").iterdir()}
        assert acknowledged.keys() <= files.keys() == last.keys()
        for item in [item for item in store.items.values() if item.kind == "file"]:
            assert item.content is not None
            assert files[item.name].stat().st_size == item.content.size
            assert last[item.name].sha256 == item.content.sha256
    finally:
        store.close()


async def test_what_was_decided_before_a_kill_is_finished_at_the_next_start(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    running = await start_graph(folder)
    graph = await connect(session, running)
    item = (await graph.upload("a.jpg", b"old")).json
    await graph.upload("a.jpg", b"new bytes")
    await running.kill()
    # As if the kill had come between the record's rename and what follows it: the bytes still lie beside the
    # library, the line is not in the log, and a later line was cut.
    record = folder / "state" / "items" / f"{item['id']}.json"
    incoming = folder / msgspec.json.decode(record.read_bytes())["incoming"]
    photo = folder / "library" / "Referenzfotos" / "a.jpg"
    photo.rename(incoming)
    photo.write_bytes(b"old")
    log = folder / "effects.jsonl"
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0] + b'{"seq":2,"ti')
    (folder / "state" / "incoming" / "abandoned").write_bytes(b"half")

    again = await start_graph(folder)
    assert photo.read_bytes() == b"new bytes"
    assert [(effect.seq, effect.size) for effect in again.effects()] == [(1, 3), (2, 9)]
    assert list((folder / "state" / "incoming").iterdir()) == []
    await again.stop()


async def test_a_session_whose_file_was_made_before_a_kill_is_finished_in_the_log(
    folder: Path, session: aiohttp.ClientSession
) -> None:
    running = await start_graph(folder)
    graph = await connect(session, running)
    url = await graph.open_session("a.jpg")
    sessions = folder / "state" / "sessions"
    record = next(sessions.glob("*.json"))
    kept = record.read_bytes()
    assert (await graph.fragment(url, b"photo", 0, 5)).status == 201
    await running.kill()
    record.write_bytes(msgspec.json.encode(msgspec.json.decode(kept) | {"received": 5, "total": 5}))
    log = folder / "effects.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))

    again = await start_graph(folder)
    kinds = [effect.effect for effect in again.effects()]
    assert kinds == ["session_created", "upload", "session_finished"]
    assert list(sessions.iterdir()) == []
    await again.stop()


def test_a_store_in_use_names_the_folder(folder: Path) -> None:
    store = Store(folder)
    with pytest.raises(FolderInUseError, match=str(folder)):
        Store(folder)
    store.close()
    Store(folder).close()
