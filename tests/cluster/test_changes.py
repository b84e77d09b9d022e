"""A cluster changes under load: a slot moves, nodes come, die and are cut off. Nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING, Final

import pytest
from redis.exceptions import ResponseError

from events.keys import all_lanes
from tests.chaos.proxy import Proxy
from tests.cluster.conftest import LANES, NODE_TIMEOUT, Cluster, lane_on, wait_until
from tests.cluster.load import Load

if TYPE_CHECKING:
    from pathlib import Path

    from events.keys import Keys
    from sandbox.redis_server import Valkey

pytestmark = pytest.mark.slow
RETURN: Final = 3.0
"""Seconds after a fail-over within which hand-offs flow again."""


async def test_a_slot_moves_and_comes_back_while_its_lane_works(cluster: Cluster) -> None:
    load = Load(cluster.url)
    lane = all_lanes(LANES)[0]
    async with load.running():
        await move(cluster, load, lane, cluster.primaries[0])
        await load.some_more(lanes=(lane,))
        await move(cluster, load, lane, cluster.primaries[1])
    await load.check()
    lost = [process.metrics.group_recreated._value.get() for process in load.processes]
    assert lost == [0, 0], "a stream that moves is no lost group"


async def move(cluster: Cluster, load: Load, lane: Keys, to: Valkey) -> None:
    """Move a lane a few keys at a time, as a tool does; the other lanes go on."""

    def step() -> int:
        return cluster.move_keys(lane, owner, to, most=3)

    owner = await asyncio.to_thread(cluster.begin_move, lane, to)
    assert owner is not to
    # new keys of the slot belong to the other node already
    await load.some_more(3, lanes=tuple(other for other in all_lanes(LANES) if other.lane != lane.lane))
    for _ in range(20):
        if not await asyncio.to_thread(step):
            break
        await asyncio.sleep(0.02)
    await asyncio.to_thread(cluster.end_move, lane, owner, to)
    assert await asyncio.to_thread(cluster.owner_of, lane) is to


async def test_a_lane_that_stands_still_keeps_no_slots_from_the_others(cluster: Cluster) -> None:
    load = Load(cluster.url, wait_replicas=0)
    lane, to = load.lanes[0], cluster.primaries[0]
    async with load.running():
        # more than all slots of both processes
        await load.pile_up(lane, 400)
        owner = await asyncio.to_thread(cluster.begin_move, lane, to)
        # from now on its keys lie on two nodes, so it can be read and not settled
        await asyncio.to_thread(cluster.move_keys, lane, owner, to, most=3)
        begun = load.by_lane[lane.lane]
        await load.some_more(50, lanes=load.lanes[1:])
        slots = load.settings.concurrency * len(load.processes)
        assert load.by_lane[lane.lane] <= begun + slots, "more is read than can be settled"
        await asyncio.to_thread(cluster.end_move, lane, owner, to)
        await load.some_more(lanes=(lane,))
    await load.check(lost=None)


async def test_a_move_that_a_replica_does_not_confirm_holds_its_lane_only_and_can_be_ended(
    cluster: Cluster,
) -> None:
    load = Load(cluster.url)
    lane, to, replica = load.lanes[0], cluster.primaries[0], cluster.replicas[0]
    homes = [await asyncio.to_thread(cluster.owner_of, one) for one in load.lanes]
    elsewhere = tuple(one for one, home in zip(load.lanes[1:], homes[1:], strict=True) if home is not to)
    async with load.running():
        owner = await asyncio.to_thread(cluster.begin_move, lane, to)
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            await asyncio.to_thread(cluster.move_keys, lane, owner, to, most=3)
            with pytest.raises(ResponseError, match="NOREPLICAS"):
                await asyncio.to_thread(cluster.ask, to, *cluster.home(lane, to))
            # those of the node whose replica is missing cannot be waited for either
            await load.some_more(lanes=elsewhere)
            ending = asyncio.create_task(asyncio.to_thread(cluster.end_move, lane, owner, to))
            # refused once more before the replica wakes, as on a machine that is busy
            await asyncio.sleep(2.5)
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        await ending
        await load.some_more()
    await load.check()


async def test_a_killed_primary_loses_nothing_that_a_replica_was_waited_for(cluster: Cluster) -> None:
    load = Load(cluster.url)
    lane = all_lanes(LANES)[0]
    async with load.running():
        dead = await asyncio.to_thread(cluster.owner_of, lane)
        dead.kill()
        cluster.primaries.remove(dead)
        await asyncio.to_thread(wait_until, lambda: cluster.state_of(cluster.replicas[1]) == "master")
        # as its supervisor does; it comes back as the replica that WAIT needs
        await asyncio.to_thread(dead.start)
        cluster.replicas.append(dead)
        await load.some_more(lanes=(lane,))
    await load.check()


async def test_hand_offs_flow_again_soon_after_the_fail_over(cluster: Cluster) -> None:
    load = Load(cluster.url, wait_replicas=0)
    lane = all_lanes(LANES)[0]
    async with load.running():
        dead = await asyncio.to_thread(cluster.owner_of, lane)
        dead.kill()
        cluster.primaries.remove(dead)
        await asyncio.to_thread(wait_until, lambda: cluster.state_of(cluster.replicas[1]) == "master")
        at = time.monotonic()
        await load.some_more(1, lanes=(lane,))
        assert time.monotonic() - at < RETURN
    await load.check(lost=None)


async def test_a_primary_that_hangs_and_wakes_has_nothing_to_say(cluster: Cluster) -> None:
    """Cut off from everybody it believes for a moment that it still is the primary."""
    load = Load(f"{cluster.url}?socket_timeout=3")
    lane = all_lanes(LANES)[0]
    async with load.running():
        old = await asyncio.to_thread(cluster.owner_of, lane)
        os.kill(old.pid, signal.SIGSTOP)
        try:
            others = [server for server in cluster.replicas if server is not old]
            await asyncio.to_thread(
                wait_until, lambda: any(cluster.state_of(server) == "master" for server in others)
            )
            await asyncio.sleep(2 * NODE_TIMEOUT)
        finally:
            os.kill(old.pid, signal.SIGCONT)
        await load.some_more(lanes=(lane,))
        assert await asyncio.to_thread(cluster.state_of, old) == "slave"
    await load.check()


async def test_a_node_without_slots_changes_nothing_until_it_gets_some(cluster: Cluster) -> None:
    load = Load(cluster.url)
    lane = all_lanes(LANES)[0]
    async with load.running():
        new = await asyncio.to_thread(cluster.add)
        await load.some_more()
        # its address alone is enough
        beside = Load(cluster.url_of(new))
        assert await beside.count("photo.submitted") >= 0
        # nothing of it is replicated: WAIT cannot be kept there
        replica = await asyncio.to_thread(cluster.add_replica, new)
        assert replica in cluster.replicas
        await move(cluster, load, lane, new)
    await load.check()


async def test_a_cut_between_us_and_one_node_stops_its_lanes_only(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "cluster")
    proxies = [Proxy(server.port) for server in cluster.servers]
    for proxy, server in zip(proxies, cluster.servers, strict=True):
        await proxy.start()
        server.options["cluster-announce-port"] = str(proxy.port)
    try:
        await asyncio.to_thread(cluster.start)
        load = Load(cluster.url)
        cut = cluster.primaries[0]
        lanes = all_lanes(LANES)
        mine = await asyncio.to_thread(lane_on, cluster, cut)
        others = tuple(lane for lane in lanes if lane.lane != mine.lane)
        async with load.running():
            proxies[0].shut = True
            for link in list(proxies[0].links):
                link.cut()
            await load.some_more(lanes=others)
            before = load.by_lane[mine.lane]
            await load.some_more(lanes=others)
            assert load.by_lane[mine.lane] == before
            proxies[0].shut = False
        await load.check()
    finally:
        for proxy in proxies:
            await proxy.stop()
        await asyncio.to_thread(cluster.stop)
