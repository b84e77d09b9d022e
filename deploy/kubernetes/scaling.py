# noqa: INP001 - a command, run by its path
"""Prints a kustomize component for LANES=N: ``python deploy/kubernetes/scaling.py --lanes N``.

It sets LANES for every pod, and names each agent's streams in every lane to KEDA. One program writes both,
because an agent is scaled wrongly when the triggers know other lanes than the pods.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Final

from events import keys, topology

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ENTRIES_PER_POD: Final = 8
"""CONCURRENCY: with fewer pods than this the entries in flight would not have a slot each."""
_ADDRESS: Final = "redis.erni.svc:6379"
_HEAD: Final = """\
# Written by deploy/kubernetes/scaling.py --lanes {lanes}
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
patches:
  - target: {{kind: ConfigMap, name: settings}}
    patch: |
      - {{op: add, path: /data/LANES, value: "{lanes}"}}
"""
_PATCH: Final = """\
  - target: {{kind: ScaledObject, name: {name}}}
    patch: |
      - {{op: replace, path: /spec/advanced/scalingModifiers/formula, value: {formula}}}
      - op: replace
        path: /spec/triggers
        value:
"""
_TRIGGER: Final = """\
          - type: redis-streams
            name: {name}
            authenticationRef: {{name: redis-scaler}}
            metadata: {{address: "{address}", stream: "{stream}", streamLength: "{length}"}}
"""


def streams(stage: topology.Stage, lanes: int) -> dict[str, str]:
    """Return the streams of an agent in all lanes: name in the formula → key in Redis.

    The names are identifiers, because KEDA reads the formula as an expression.
    """
    return {
        name.replace(".", "_") + (f"_{lane.lane}" if lane.lane else ""): lane.stream(name)
        for name in stage.reads
        for lane in keys.all_lanes(lanes)
    }


def component(lanes: int) -> str:
    """Return the component's kustomization.yaml."""
    return "".join(_parts(lanes))


def _parts(lanes: int) -> Iterator[str]:
    yield _HEAD.format(lanes=lanes)
    for stage in topology.PIPELINE:
        found = streams(stage, lanes)
        yield _PATCH.format(name=stage.agent.replace("_", "-"), formula=" + ".join(found))
        for name, stream in found.items():
            yield _TRIGGER.format(name=name, address=_ADDRESS, stream=stream, length=ENTRIES_PER_POD)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 99):
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 99, as in LANES")
    return int(text)


def main(words: Sequence[str] | None = None) -> None:
    """Print it."""
    parser = argparse.ArgumentParser(
        description="Print a kustomize component that sets LANES and scales by the streams of all lanes."
    )
    parser.add_argument("--lanes", type=_number, required=True, help="the number of lanes, from 1 to 99")
    sys.stdout.write(component(parser.parse_args(words).lanes))


if __name__ == "__main__":
    main()
