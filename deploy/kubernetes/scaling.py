# noqa: INP001 - a command, run by its path
"""Prints a kustomize component for LANES=N and another Redis: ``scaling.py --lanes N [--redis ADDRESS]``.

It sets LANES and REDIS_URL for every pod, and names each agent's streams in every lane to KEDA. One program
writes both, because an agent is scaled wrongly when the triggers know other lanes than the pods.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from events import keys, redis_address, topology

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENTRIES_PER_POD: Final = 8
"""CONCURRENCY: with fewer pods than this the entries in flight would not have a slot each."""
_ADDRESS: Final = "redis://redis.erni.svc:6379/0"
_HEAD: Final = """\
# Written by deploy/kubernetes/scaling.py {words}
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
  - target: {{kind: ConfigMap, name: settings}}
    patch: |
      - {{op: add, path: /data/LANES, value: "{lanes}"}}
"""
_POD: Final = """\
  - target: {{kind: Deployment, name: {name}}}
    patch: |
      - {{op: test, path: /spec/template/spec/containers/0/env/{at}/name, value: REDIS_URL}}
      - {{op: replace, path: /spec/template/spec/containers/0/env/{at}/value, value: "{address}"}}
"""
_SCALER: Final = """\
  - target: {{kind: ScaledObject, name: {name}}}
    patch: |
      - {{op: replace, path: /spec/advanced/scalingModifiers/formula, value: {formula}}}
      - op: replace
        path: /spec/triggers
        value:
"""
_TRIGGER: Final = """\
          - type: {kind}
            name: {name}
            authenticationRef: {{name: redis-scaler}}
            metadata: {{{place}, stream: "{stream}", streamLength: "{length}"}}
"""


def streams(stage: topology.Stage, lanes: int) -> dict[str, str]:
    """Return the streams of an agent in all lanes: name in the formula → key in Redis.

    The names are identifiers, because KEDA reads the formula as an expression.
    """
    return {
        name.replace(".", "_") + (f"_{lane.lane}" if lane.lane else ""): lane.stream(name)
        for name in stage.streams
        for lane in keys.all_lanes(lanes)
    }


def component(lanes: int, redis: str = "") -> str:
    """Return the component's kustomization.yaml. `redis`: an address that `_address` accepts, or ''."""
    return "".join(_parts(lanes, redis))


def _parts(lanes: int, redis: str) -> Iterator[str]:
    yield _HEAD.format(lanes=lanes, words=f"--lanes {lanes}" + (f" --redis {redis}" if redis else ""))
    kind, place = _place(redis_address.read(redis or _ADDRESS))
    if redis:
        yield _POD.format(name="gateway", at=1, address=redis.replace("://", "://operator@", 1))
    for stage in topology.STAGES:
        found = streams(stage, lanes)
        name = stage.agent.replace("_", "-")
        if redis:
            yield _POD.format(name=name, at=0, address=redis.replace("://", "://worker@", 1))
        yield _SCALER.format(name=name, formula=" + ".join(found))
        for trigger, stream in found.items():
            yield _TRIGGER.format(kind=kind, name=trigger, place=place, stream=stream, length=ENTRIES_PER_POD)


def _place(address: redis_address.RedisAddress) -> tuple[str, str]:
    """Return the type of KEDA's trigger, and the metadata that say where Redis is."""
    metadata = {"address": f"{address.host}:{address.port}"}
    kind = "redis-streams"
    if several := address.sentinels or address.nodes:
        metadata = {"addresses": ",".join(f"{host}:{port}" for host, port in several)}
        kind = "redis-cluster-streams"
    if address.sentinels:
        metadata["sentinelMaster"] = address.master
        kind = "redis-sentinel-streams"
    if address.db:
        metadata["databaseIndex"] = str(address.db)
    if address.is_tls:
        metadata["enableTLS"] = "true"
    return kind, ", ".join(f'{name}: "{value}"' for name, value in metadata.items())


def _number(text: str) -> int:
    # the role `upstream` of deploy/redis/users.acl has keys of so many lanes
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 99):
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 99, as in LANES")
    return int(text)


def _address(text: str) -> str:
    try:
        address = redis_address.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if address.path:
        raise argparse.ArgumentTypeError("a pod reaches no socket of another: give a host")
    if "@" in text or "?" in text:
        raise argparse.ArgumentTypeError(
            "expected an address without user, password and parameters: the manifests name a role for each"
            " pod, and its password is in a secret"
        )
    return text


def main(words: Sequence[str] | None = None) -> None:
    """Print it."""
    parser = argparse.ArgumentParser(
        description="Print a kustomize component that sets LANES and REDIS_URL, and scales by all streams."
    )
    parser.add_argument("--lanes", type=_number, required=True, help="the number of lanes, from 1 to 99")
    parser.add_argument(
        "--redis", type=_address, default="", help="an address such as redis+sentinel://host:26379/erni/0"
    )
    given = parser.parse_args(words)
    if given.lanes == 1 and "+cluster://" in given.redis:
        parser.error("a cluster needs two lanes or more: the keys of LANES=1 lie on several of its nodes")
    sys.stdout.write(component(given.lanes, given.redis))


if __name__ == "__main__":
    main()
