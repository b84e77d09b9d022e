"""Checks the Redis server before an agent starts; each finding is a sentence."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import BusyLoadingError, ReadOnlyError

from events import keys
from events.cluster import ClusterClient
from events.connection import RedisError, Trouble, follows_primary, servers_of, trouble_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis


class RedisUnfitError(Exception):
    """Report that the server cannot keep our promises; the message says why and what to do."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one check: whether it is fine, and the sentence about it."""

    ok: bool
    sentence: str


async def check_redis(redis: Redis, *, lanes: int, allow_volatile: bool) -> list[Finding]:
    """Check each server.

    Raises what redis-py raises if one does not answer, is loading, or is replaced by another one at this
    moment.
    """
    # an address for one server is no ClusterClient, whatever answers there
    cluster = redis if isinstance(redis, ClusterClient) else None
    findings: dict[Finding, None] = {}
    for server in await servers_of(redis):
        info = _texts(await server.info())
        if info.get("loading") == "1":
            # INFO answers while loading, and reports until its end that there is no append-only file
            raise BusyLoadingError("Redis is loading its data")
        if _is_replica(info) and follows_primary(redis):
            # nobody named it: the sentinels or the cluster did, who have not heard of the fail-over yet
            raise ReadOnlyError(f"a fail-over goes on: {_name(server)} is a replica of {_primary(info)}")
        found = [_version(info), _role(info), _cluster(info, lanes, cluster), _policy(info)]
        found.append(await _persistence(server, info, allow_volatile=allow_volatile))
        # what all nodes have in common is said once
        findings |= dict.fromkeys(one if one.ok or not cluster else _of(server, one) for one in found)
    if cluster and lanes > 1:
        findings[await _spread(cluster, lanes)] = None
    return list(findings)


async def require(redis: Redis, *, lanes: int, allow_volatile: bool) -> None:
    """Raise RedisUnfitError with every finding that is not fine."""
    findings = await check_redis(redis, lanes=lanes, allow_volatile=allow_volatile)
    wrong = [finding.sentence for finding in findings if not finding.ok]
    if wrong:
        raise RedisUnfitError("; ".join(wrong))


def is_passing(error: BaseException) -> bool:
    """Return whether waiting may help: the server is away, loading, or failing over."""
    return isinstance(error, OSError) or trouble_of(error) in (
        Trouble.AWAY,
        Trouble.LOADING,
        Trouble.READ_ONLY,
    )


def _texts(info: Any) -> dict[str, str]:
    return {str(key): str(value) for key, value in info.items()}


def _version(info: dict[str, str]) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "0")
    major = int(version.split(".")[0])
    if major < 7:
        return Finding(
            ok=False,
            sentence=f"{name} {version} is too old: scripts and streams need Redis 7.0 or Valkey; upgrade it",
        )
    return Finding(ok=True, sentence=f"{name} {version}")


def _is_replica(info: dict[str, str]) -> bool:
    return info.get("role") in ("slave", "replica")


def _primary(info: dict[str, str]) -> str:
    """Return the host and port that a replica copies."""
    return f"{info.get('master_host')}:{info.get('master_port')}"


def _role(info: dict[str, str]) -> Finding:
    if _is_replica(info):
        return Finding(
            ok=False, sentence=f"this server is a replica of {_primary(info)}: set REDIS_URL to the primary"
        )
    return Finding(ok=True, sentence="primary")


def _cluster(info: dict[str, str], lanes: int, cluster: ClusterClient | None) -> Finding:
    if info.get("cluster_enabled") != "1":
        return Finding(ok=True, sentence="single server")
    if lanes == 1:
        return Finding(
            ok=False,
            sentence="this server is a cluster: set LANES (6, for example); with LANES=1 the keys that one"
            " script writes lie on several nodes",
        )
    if cluster is None:
        return Finding(
            ok=False,
            sentence="this server is a node of a cluster: write redis+cluster:// instead of redis:// in"
            " REDIS_URL (rediss+cluster:// with TLS), with the hosts and ports of some nodes behind it",
        )
    return Finding(ok=True, sentence=f"cluster with {lanes} lanes")


def _of(server: Redis, finding: Finding) -> Finding:
    """Name the node that a finding is about."""
    return Finding(ok=finding.ok, sentence=f"{_name(server)}: {finding.sentence}")


async def _spread(cluster: ClusterClient, lanes: int) -> Finding:
    """Say how many lanes each node has: a lane is one slot, and its number says nothing of where that is."""
    counts = Counter({_name(server): 0 for server in await cluster.primaries()})
    for lane in keys.all_lanes(lanes):
        counts[_name(await cluster.home_of(lane.paused))] += 1
    share = ", ".join(f"{name} has {count}" for name, count in sorted(counts.items()))
    return Finding(ok=True, sentence=f"of the lanes, {share}")


def _name(server: Redis) -> str:
    place = server.connection_pool.connection_kwargs
    return f"{place['host']}:{place['port']}"


def _policy(info: dict[str, str]) -> Finding:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return Finding(
            ok=False,
            sentence=f"maxmemory-policy is {policy}: it would evict whole streams; set it to noeviction",
        )
    return Finding(ok=True, sentence="maxmemory-policy noeviction")


async def _persistence(redis: Redis, info: dict[str, str], *, allow_volatile: bool) -> Finding:
    if info.get("aof_enabled") != "1":
        if allow_volatile:
            return Finding(ok=True, sentence="no append-only file, allowed by ALLOW_VOLATILE_REDIS")
        return Finding(
            ok=False,
            sentence="the server keeps no append-only file, so a restart loses photos: set appendonly yes and"
            " appendfsync always, or ALLOW_VOLATILE_REDIS=1 if that is meant",
        )
    fetch: Callable[..., Awaitable[Any]] = redis.config_get
    try:
        policy = str((await fetch("appendfsync")).get("appendfsync", ""))
    except RedisError as error:
        if trouble_of(error) is Trouble.AWAY:
            raise
        # the ACL of the agents hides CONFIG on purpose
        return Finding(ok=True, sentence="append-only file on (appendfsync not visible to this user)")
    if policy != "always":
        return Finding(
            ok=True,
            sentence=f"append-only file on, appendfsync {policy}: a power cut can lose about a second of"
            " acknowledged photos (always loses none)",
        )
    return Finding(ok=True, sentence="append-only file on, appendfsync always")
