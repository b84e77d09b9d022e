"""Names in Redis, and which lane a thing belongs to."""

from __future__ import annotations

import re

from events import keys, topology
from events.keys import Keys, all_lanes, lane_of


def every_key(lane: Keys) -> list[str]:
    return [
        lane.paused,
        lane.session_open,
        lane.session_lru,
        *(lane.stream(name) for name in topology.TYPES),
        *(
            name(agent)
            for name in (lane.dead, lane.delayed, lane.beats, lane.processes)
            for agent in topology.AGENTS
        ),
        lane.marker("host-1-abc"),
        lane.session("s"),
        lane.session_photos("s"),
        lane.session_first("s"),
        lane.photo("p"),
        lane.published("e{9}"),
    ]


def test_one_lane_has_plain_names() -> None:
    [lane] = all_lanes(1)
    assert lane.stream("photo.submitted") == "erni:photo.submitted"
    assert lane.dead("photo_fetcher") == "erni:dead:photo_fetcher"
    assert not any("{" in key for key in every_key(lane) if "published" not in key)


def test_all_keys_of_a_lane_carry_its_hash_tag_first() -> None:
    for lane in all_lanes(3):
        # a cluster hashes what stands between the first braces
        assert {re.findall(r"\{(.*?)\}", key)[0] for key in every_key(lane)} == {str(lane.lane)}


def test_no_two_things_have_one_name() -> None:
    names = [key for lane in (*all_lanes(1), *all_lanes(3)) for key in every_key(lane)]
    assert len(set(names)) == len(names)


def test_a_lane_is_the_crc_of_what_it_belongs_to() -> None:
    # written down in docs/events.md for upstreams in other languages: it must never change
    lanes = [lane_of(text, 8).lane for text in ("bau-7", "seewen-2026-05-12", "p-1", "")]
    assert lanes == [CRC["bau-7"] % 8 + 1, CRC["seewen-2026-05-12"] % 8 + 1, CRC["p-1"] % 8 + 1, 1]
    assert lane_of("bau-7", 1).lane is None


CRC = {"bau-7": 0x6CE7160D, "seewen-2026-05-12": 0x71E0B17E, "p-1": 0xDA44EB97}
"""CRC-32 as in zlib, gzip and PNG."""


def test_ids_spread_over_the_lanes() -> None:
    found = [lane_of(f"session-{number}", 4).lane for number in range(4000)]
    assert min(found.count(lane) for lane in range(1, 5)) > 900


def test_the_consumer_of_what_was_given_back_is_no_process() -> None:
    assert "-" not in keys.RETURNED
