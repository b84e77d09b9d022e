"""What `erni up` says of this machine: each condition when it begins and when it ends."""

from __future__ import annotations

from console.conditions import Conditions, Wrong, disk_conditions
from shared.operations.disks import Disk


def test_a_condition_of_this_machine_is_said_when_it_begins_and_when_it_ends() -> None:
    conditions = Conditions()
    assert conditions.news({"a": Wrong("a: its process is stopped (5 s)", "a: goes on")}) == [
        "a: its process is stopped (5 s)"
    ]
    assert conditions.news({"a": Wrong("a: its process is stopped (6 s)", "a: goes on")}) == []
    assert conditions.news({}) == ["a: goes on"]
    assert conditions.news({}) == []


def disk_news(conditions: Conditions, megabytes: float) -> list[str]:
    disk = Disk(folder="/data", free=int(megabytes * 1e6), total=2_000_000_000)
    return conditions.news(*disk_conditions([disk]))


def test_a_disk_whose_room_swings_around_the_limit_has_no_room_again() -> None:
    conditions = Conditions()
    assert "is nearly full" in disk_news(conditions, 90)[0]
    assert [said[:26] for said in disk_news(conditions, 0.5)] == ["the disk of /data is full:"]
    # Redis ends and deletes its temporary file, and is started again
    assert [disk_news(conditions, room) for room in (1.5, 0.2, 9, 0.2, 60, 60, 0.2)] == [[]] * 7
    assert [disk_news(conditions, 105) for _ in range(9)] == [[]] * 9
    assert disk_news(conditions, 105) == ["the disk of /data is no longer full"]
    assert [disk_news(conditions, 105) for _ in range(20)] == [[]] * 20
    assert [disk_news(conditions, 500) for _ in range(9)] == [[]] * 9
    assert disk_news(conditions, 500) == ["the disk of /data has room again"]
    assert disk_news(conditions, 500) == []
