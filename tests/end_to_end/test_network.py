"""No agent talks to a host that the settings do not name, nor keeps files for such a talk."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pytest

from events.topology import AGENTS
from tests.end_to_end import scenario
from tests.end_to_end.system import System
from tests.tools import require

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.needs("strace"), pytest.mark.timeout(180)]

# An address as strace prints it, in connect, sendto, sendmsg and sendmmsg. DNS questions go to port 53.
_PEER: Final = re.compile(
    r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*?sin6?_port=htons\((?P<port>\d+)\)"
    r'.*?inet_(?:addr\("|pton\(AF_INET6, ")(?P<host>[^"]+)"'
)


class Watched(System):
    """A system whose agents run under strace, which writes down whom they connect and send to."""

    def _spawn(self, name: str, words: list[str], environment: dict[str, str], *, hear: bool = False) -> None:
        if name in AGENTS:
            # -D: the agent stays our child, and strace watches it from beside
            words = [
                *(str(require("strace")), "-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=%network"),
                *("-o", str(self.folder / f"{name}.strace"), *words),
            ]
        super()._spawn(name, words, environment, hear=hear)

    def peers(self, agent: str) -> set[tuple[str, int]]:
        """Whom the agent connected or sent to: host and port."""
        lines = (self.folder / f"{agent}.strace").read_text().splitlines()
        found = [match for line in lines if (match := _PEER.search(line))]
        # gRPC writes an IPv4 address in its IPv6 form
        return {(match["host"].removeprefix("::ffff:"), int(match["port"])) for match in found}

    def named(self) -> set[tuple[str, int]]:
        """The hosts and ports in the addresses of the settings."""
        urls = [urlsplit(value) for value in self.environment.values() if "://" in value]
        return {(url.hostname, url.port) for url in urls if url.hostname and url.port}


def test_every_process_reaches_only_what_the_settings_name(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Watched(
        tmp_path, vision=False, traces=True, settings={"HOME": str(home), "VISION_FACES": "1"}
    ) as system:
        names = scenario.pictures(system.photos, 4, seed="network")
        system.erni("publish", str(system.photos), "--session", "network")
        outcome = system.wait("network")
        named = system.named()
        for agent in AGENTS:
            system.end(agent)
        peers = {agent: system.peers(agent) for agent in AGENTS}
    assert outcome.names == names
    # each was watched: it talked to Redis
    assert all(peers.values())
    assert {agent: reached - named for agent, reached in peers.items() if reached - named} == {}
    # onnxruntime keeps a device id and a database of events below the home folder before it sends any
    kept = {path.relative_to(home).parts[:2] for path in home.rglob("*") if path.is_file()}
    assert kept == {(".cache", "erni")}
