"""Finds and removes what is kept about a session: records, dead letters, and blobs nobody else needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from events import intake, keys, topology
from events.connection import call
from events.identities import SessionId
from shared.delivery import packing
from shared.delivery.dead_letter import DeadLetter
from shared.operations import activity, acts, submissions
from shared.operations.dead_letters import DeadFilter, DeadLetters
from shared.operations.in_use import contents_in, named, on_their_way
from shared.operations.retention import CONTENT_FOLDERS
from shared.photo_store import CONTENT, SCHEME, BlobMissingError
from shared.reports.photo_report import photos_of_session, read_photo_report, session_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from redis.asyncio import Redis

    from events.keys import Keys
    from shared.operations.activity import Person
    from shared.photo_store import BlobStore
    from shared.sessions.shared_store import SharedSessions

_PAGE = 500


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Lists what forgetting a session will remove."""

    session: SessionId
    photos: list[str]
    """Photo ids with a record."""
    letters: list[DeadLetter]
    archived: list[DeadLetter] = []
    """Discarded dead letters."""
    blobs: list[str]
    """Keys in the store."""
    public: list[tuple[str, bytes]]
    """Entries of the public streams: the stream's key and the entry's id."""
    notices: list[tuple[str, bytes]] = []
    """Notices to web hooks that wait: a stream and the entry's id, or a sorted set and the member."""
    markers: list[str]
    """Keys that remember the session's events, so that none is published twice.

    Those of `erni publish` and those of photos that were published over HTTP. The ids that a `Publisher` was
    given elsewhere are not among them: nothing says whose session they were.
    """
    counters: list[str] = []
    """Keys that count for a while how many photos each source published into the session."""

    @property
    def empty(self) -> bool:
        """Whether nothing is kept."""
        kept = (self.photos, self.letters, self.archived, self.blobs, self.public, self.notices, self.markers)
        return not any((*kept, self.counters))

    @property
    def sentence(self) -> str:
        """What it is, in words."""
        counts = (
            (self.photos, "photo records"),
            (self.letters + self.archived, "dead letters"),
            (self.blobs, "stored files"),
            (self.public, "public events"),
            *([(self.notices, "notices to web hooks")] if self.notices else ()),
            (self.markers, "event ids"),
        )
        return ", ".join(f"{len(these)} {what}" for these, what in counts)


async def look(redis: Redis, store: BlobStore, session: SessionId, *, lanes: int) -> Plan:
    """Find everything that is kept about a session.

    Looks through all dead letters, entries on their way and photo reports: one picture may have many users.
    """
    dead = DeadLetters(redis, lanes=lanes)
    mine, others = set[str](), set[str]()
    found: dict[bool, dict[tuple[str, str], DeadLetter]] = {False: {}, True: {}}
    # what is discarded moves to the archive, what is restored moves back: this order misses neither
    for archived in (False, True, False):
        async for letter in dead.find(DeadFilter(), archived=archived):
            original = await dead.original(letter, archived=archived)
            contents = contents_in(original)
            # a notice names its session in the entry alone: it is none of the session's dead photos
            if session == letter.session_id or session in named(original, b"sessionid"):
                found[archived][letter.agent, letter.id] = letter
                mine |= contents
            else:
                others |= contents
    own = session_prefix(session)
    blobs = [key async for key in store.keys(own)]
    mine |= {report.sha256 for report in await photos_of_session(store, session)}
    async for key in store.keys("reports/"):
        if not key.startswith(own) and "/photos/" in key:
            try:
                others.add((await read_photo_report(store, SCHEME + key)).sha256)
            except (BlobMissingError, msgspec.MsgspecError):
                continue
    others |= (await on_their_way(redis, lanes))[0]
    # What the uploader noted has the values it wrote, so it goes as well: what stands in SharePoint then
    # counts as written by people, which errs on their side.
    for folder in (*CONTENT_FOLDERS, "sharepoint/"):
        # An answer says what the hints of its question said, and only saves asking again: it goes even if
        # another session has the picture.
        gone = mine if folder == "vision/" else mine - others
        blobs += [
            key async for key in store.keys(folder) if (sha := CONTENT.search(key)) and sha.group() in gone
        ]
    lane = keys.lane_of(session, lanes)
    photos = [photo async for photo in _records(redis, lane, session)]
    return Plan(
        session=session,
        photos=photos,
        letters=list(found[False].values()),
        archived=list(found[True].values()),
        blobs=blobs,
        public=[
            entry
            for stream in sorted(topology.PUBLIC)
            async for entry in _entries(redis, lane.stream(stream), session)
        ],
        notices=[notice async for notice in _notices(redis, lane, session)],
        markers=[
            begin + rest
            for begin in (
                intake.marker(lane, intake.COMMAND_SOURCE, f"{session}/"),
                # written before a marker named its source; they last a day
                lane.published(f"{session}/"),
            )
            async for rest in _names(redis, begin, "string")
        ]
        + [marker async for marker in _over_http(redis, lane, photos)],
        counters=[
            lane.sent(source, session)
            async for name in _names(redis, lane.sent("", "").removesuffix(":"), "string")
            for source, _, of in [name.partition(":")]
            if of == session
        ],
    )


async def forget(
    redis: Redis,
    store: BlobStore,
    plan: Plan,
    sessions: SharedSessions,
    *,
    lanes: int,
    by: Person | None = None,
) -> None:
    """Remove what was found. Cut short, it can be done again.

    `by`: who does it, for the list of activities; None: nobody is named there.
    """
    # first: what was done is known even if the process ends in the middle
    await activity.noted(redis, by, "forget session", plan.session)
    dead = DeadLetters(redis, lanes=lanes)
    lane = keys.lane_of(plan.session, lanes)
    # before the records, which lead to them
    for key in (*plan.markers, *plan.counters):
        await redis.delete(key)
    for photo in plan.photos:
        await redis.delete(lane.photo(photo))
    for stream, entry_id in plan.public:
        await redis.xdel(stream, entry_id)
    notifier = topology.NOTIFIER.agent
    for key, what in plan.notices:
        if key == lane.delayed(notifier):
            await redis.zrem(key, what)
        else:
            await redis.xack(key, notifier, what)
            await redis.xdel(key, what)
    # Letters and reports, which name the contents, after these: else a second attempt would not find them.
    own = session_prefix(plan.session)
    # somebody may have submitted the same picture while we asked whether to remove it
    needed, _ = await on_their_way(redis, lanes)
    for key in sorted(plan.blobs, key=lambda key: key.startswith(own)):
        sha = CONTENT.search(key)
        if not key.startswith(own) and sha and sha.group() in needed and not key.startswith("vision/"):
            continue
        await store.delete(SCHEME + key)
    for letter in plan.letters:
        await dead.discard(letter)
    for letter in plan.archived:
        await dead.delete_archived(letter)
    await acts.forget(redis, plan.session, plan.photos, lanes=lanes)
    await redis.delete(lane.session_source(plan.session), lane.session_first(plan.session))
    await sessions.delete(plan.session)


async def _records(redis: Redis, lane: Keys, session: SessionId) -> AsyncIterator[str]:
    """The photos with a record of that session; the session's own list may be gone before them."""
    async for photo in _names(redis, lane.photo(""), "hash"):
        if await call(redis, "HGET", lane.photo(photo), "session") == session.encode():
            yield photo


async def _over_http(redis: Redis, lane: Keys, photos: Sequence[str]) -> AsyncIterator[str]:
    """The markers of photos that came over HTTP, whose records say with which event."""
    for photo in photos:
        note = await submissions.of_photo(redis, lane, photo)
        if note is not None:
            marker = intake.marker(lane, note.source, note.event_id)
            if await call(redis, "EXISTS", marker):
                yield marker


async def _names(redis: Redis, prefix: str, kind: str) -> AsyncIterator[str]:
    """What stands behind the prefix in the keys that begin with it. None comes twice."""
    found: AsyncIterator[bytes] = redis.scan_iter(
        match="".join(f"[{c}]" if c in "*?[]{}\\" else c for c in prefix) + "*", count=_PAGE, _type=kind
    )
    names = {key.decode().removeprefix(prefix) async for key in found}
    for name in sorted(names):
        yield name


async def _entries(redis: Redis, stream: str, session: SessionId) -> AsyncIterator[tuple[str, bytes]]:
    """Yield the session's entries in a stream."""
    start = "-"
    while page := await call(redis, "XRANGE", stream, start, "+", "COUNT", _PAGE):
        for entry_id, flat in page:
            if (b"sessionid", session.encode()) in zip(flat[::2], flat[1::2], strict=True):
                yield stream, entry_id
        start = "(" + page[-1][0].decode()


async def _notices(redis: Redis, lane: Keys, session: SessionId) -> AsyncIterator[tuple[str, bytes]]:
    """Yield the session's notices to web hooks that wait or were postponed."""
    async for entry in _entries(redis, lane.stream(topology.QUEUED), session):
        yield entry
    delayed = lane.delayed(topology.NOTIFIER.agent)
    async for member, _ in redis.zscan_iter(delayed, count=_PAGE):
        try:
            flat = packing.unpack(member)[1]
        except (ValueError, TypeError, LookupError):
            # a foreign value in our set
            continue
        if (b"sessionid", session.encode()) in zip(flat[::2], flat[1::2], strict=False):
            yield delayed, member
