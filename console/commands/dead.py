"""`erni dead …`: what could not be processed, why, and what becomes of it."""

from __future__ import annotations

import base64
import re
import time
from typing import TYPE_CHECKING, Final

from console import durations
from console.arguments import checked, describe, subcommands, whole, words
from console.commands.dead_changes import delete, discard, replay, restore
from console.errors import CommandError
from console.rows import fitted, one_line
from events import identities, topology

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Iterator, Sequence

    from console.output import Output
    from shared.delivery.dead_letter import DeadLetter
    from shared.operations.dead_letters import DeadFilter, Group
    from shared.settings import Settings

_SHOWN: Final = 2000
"""Bytes shown of a field."""
_FIELDS: Final = 40
"""Fields shown of an entry."""
_ID: Final = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)
_MOST: Final = 2**64
"""Both parts of an id are below it."""
_PIECE: Final = 500
"""Dead letters written at once."""
_REASONS: Final = ("exhausted", "permanent", "undecodable", "delivery_limit")


def arguments(parser: argparse.ArgumentParser) -> None:
    """`erni dead …`."""
    add = subcommands(
        parser,
        "Dead letters: photos that could not be processed, each with its reason. Find out why (list, show), "
        "remove the cause, then replay them. Nothing is lost meanwhile.",
        "erni dead list",
        "erni dead replay --fingerprint 3f2a90c1d7e4",
    )
    listing = add("list", "all dead letters, grouped by cause")
    describe(
        listing,
        "List dead letters, grouped by cause.",
        "erni dead list",
        "erni dead list --agent sharepoint_uploader --newer-than 2h",
        run=list_,
    )
    showing = add("show", "one dead letter with all that is known")
    describe(
        showing,
        "One dead letter: why, the attempts, the original entry, the trace, and what to do.",
        "erni dead show 1764012345678-0",
        run=show,
    )
    showing.add_argument("id", metavar="ID", type=words, help="as `erni dead list` shows it")
    showing.add_argument(
        "--agent", choices=topology.CONSUMERS, metavar="AGENT", help="if two agents have that id"
    )
    replaying = add("replay", "send them through again")
    describe(
        replaying,
        "Move dead letters back to the agent that failed. Two operators at once are safe: each is moved "
        "once.",
        "erni dead replay --fingerprint 3f2a90c1d7e4 --dry-run",
        "erni dead replay --session seewen-2026-05-12 --rate 5/s",
        run=replay,
    )
    replaying.add_argument(
        "--rate",
        metavar="N/s",
        type=checked(durations.per_second),
        help="at most this number, such as 5/s or 100/m",
    )
    replaying.add_argument("--dry-run", action="store_true", help="show what would be replayed")
    discarding = add("discard", "move them into the archive")
    describe(
        discarding,
        "Move dead letters into the archive, where they stay for ARCHIVE_DAYS (90) and can be restored. Asks "
        "first. With --for-good (or ARCHIVE_DAYS=0) they are deleted, which frees memory of Redis.",
        "erni dead discard --reason undecodable --older-than 30d",
        "erni dead discard --fingerprint 3f2a90c1d7e4 --for-good",
        run=discard,
    )
    discarding.add_argument(
        "--for-good", action="store_true", help="delete them: the archive keeps nothing, none can be restored"
    )
    discarding.add_argument("--yes", action="store_true", help="do not ask")
    restoring = add("restore", "take discarded ones back")
    describe(
        restoring,
        "Move discarded dead letters out of the archive, back among the dead letters, to be replayed.",
        "erni dead restore --session seewen-2026-05-12",
        run=restore,
    )
    archive = subcommands(
        add("archive", "what was discarded"), "Dead letters that were discarded.", "erni dead archive list"
    )
    archived = archive("list", "all discarded dead letters, grouped by cause")
    describe(
        archived,
        "List discarded dead letters, grouped by cause. They can be restored for ARCHIVE_DAYS (90).",
        "erni dead archive list",
        "erni dead archive list --session seewen-2026-05-12",
        run=list_,
    )
    deleting = archive("delete", "delete discarded ones for good")
    describe(
        deleting,
        "Delete discarded dead letters for good, which frees memory of Redis. Asks first. None can be "
        "restored.",
        "erni dead archive delete --older-than 30d",
        run=delete,
    )
    deleting.add_argument("--yes", action="store_true", help="do not ask")
    archived.set_defaults(archived=True)
    listing.set_defaults(archived=False)
    for command in (listing, replaying, discarding, restoring, archived, deleting):
        _filters(command)
    for command in (replaying, discarding, restoring, deleting):
        command.add_argument("--all", action="store_true", help="all there are, if no filter is given")


def _filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which ones (all conditions must hold)")
    names = topology.CONSUMERS
    group.add_argument("--agent", choices=names, metavar="AGENT", help=", ".join(names))
    group.add_argument("--reason", choices=_REASONS, metavar="REASON", help=", ".join(_REASONS))
    group.add_argument("--error-type", metavar="TYPE", type=words, help="such as HttpStatusError")
    group.add_argument("--fingerprint", metavar="HEX", type=words, help="one kind of failure")
    group.add_argument("--session", metavar="ID", type=checked(_session), help="of one session")
    part = "of one photo; * stands for any characters, also in --session: '*luzern*'"
    group.add_argument("--photo", metavar="ID|FILENAME", type=words, help=part)
    when = "a duration (10m, 2h) or a time (2026-05-12T10:30, UTC)"
    group.add_argument("--older-than", metavar="WHEN", type=checked(_age), help=when)
    group.add_argument("--newer-than", metavar="WHEN", type=checked(_age), help=when)
    group.add_argument("--limit", metavar="N", type=whole(1), help="at most this number, the oldest first")


def _session(text: str) -> str:
    """A session id, or a part of one with a `*`."""
    return words(text) if "*" in text else identities.session_id(text)


def _age(text: str) -> float:
    """Seconds before now."""
    now = time.time()
    return now - durations.moment(text, now)


def filter_of(options: argparse.Namespace) -> DeadFilter:
    from shared.operations.dead_letters import DeadFilter

    return DeadFilter(
        agent=options.agent,
        reason=options.reason,
        error_type=options.error_type,
        fingerprint=options.fingerprint,
        session=options.session,
        photo=options.photo,
        older_than=options.older_than,
        newer_than=options.newer_than,
        limit=options.limit,
    )


async def list_(options: argparse.Namespace, output: Output) -> int:
    """Group what matches by kind of failure."""
    from console import system
    from console.explain import redis_client, strange_redis
    from shared.operations.dead_letters import DeadLetters

    settings = system.load()
    wanted = filter_of(options)
    async with redis_client(settings) as redis:
        dead = DeadLetters(redis, lanes=settings.lanes)
        if output.as_json:
            output.answer_in_pieces(await _document(dead.find(wanted, archived=options.archived)))
            return 0
        groups = await dead.groups(wanted, archived=options.archived)
        strange = "" if groups else await strange_redis(redis, settings)
    for group in groups:
        _tell_group(output, group)
    if groups:
        output.say(count(sum(group.count for group in groups)))
    if options.archived:
        output.say("back:  erni dead restore --fingerprint HEX" if groups else "no discarded dead letter")
    elif groups:
        output.say("one in full:  erni dead show ID     again:  erni dead replay --fingerprint HEX")
    else:
        output.say(f"no dead letter{'' if wanted.empty else ' matches'}{strange}")
    return 0


async def _document(found: AsyncIterator[DeadLetter]) -> Iterator[bytes | bytearray]:
    """Return the JSON of `erni dead list` in pieces; the letters as objects would take far more memory."""
    import msgspec

    encode_into = msgspec.json.Encoder().encode_into
    groups: dict[str, _Encoded] = {}
    async for letter in found:
        group = groups.get(letter.fingerprint)
        if group is None:
            group = groups[letter.fingerprint] = _Encoded(letter)
        encode_into(letter, group.next_piece(letter), -1)
    return _pieces(sorted(groups.items(), key=lambda group: -group[1].count))


class _Encoded:
    """The dead letters of one cause as JSON."""

    def __init__(self, first: DeadLetter) -> None:
        self.last = first
        self.last_failed_at = first.failed_at
        self.count = 0
        self.pieces: list[bytearray] = []

    def next_piece(self, letter: DeadLetter) -> bytearray:
        """Count a dead letter; return where its JSON belongs."""
        self.last = letter
        self.last_failed_at = max(self.last_failed_at, letter.failed_at)
        if self.count % _PIECE:
            piece = self.pieces[-1]
            piece += b",\n      "
        else:
            piece = bytearray(b",\n      " if self.count else b"      ")
            self.pieces.append(piece)
        self.count += 1
        return piece


def _pieces(groups: Sequence[tuple[str, _Encoded]]) -> Iterator[bytes | bytearray]:
    import msgspec

    yield b'{\n  "total": %d,\n  "groups": [' % sum(group.count for _, group in groups)
    for place, (fingerprint, group) in enumerate(groups):
        head = {
            "fingerprint": fingerprint,
            "count": group.count,
            "agent": group.last.agent,
            "reason": group.last.reason,
            "error_type": group.last.error_type,
            "message": group.last.message,
            "last_failed_at": group.last_failed_at,
        }
        yield b",\n" if place else b"\n"
        yield b"    " + msgspec.json.encode(head)[:-1] + b',\n    "letters": [\n'
        yield from group.pieces
        yield b"\n    ]}"
    yield b"\n  ]\n}\n" if groups else b"]\n}\n"


def name_of(letter: DeadLetter) -> str:
    if letter.stream == topology.COMPLETED:
        return f"report of {letter.session_id or 'a session'}"
    return letter.file_name or letter.photo_id or "(unreadable)"


def count(number: int) -> str:
    return f"{number} dead letter{'' if number == 1 else 's'}"


def _tell_group(output: Output, group: Group) -> None:
    if not group.newest:
        # all of them were replayed or discarded since they were counted
        return
    last = group.newest[-1]
    ago = durations.short(time.time() - last.failed_at)
    head = f"{count(group.count)} of {last.agent}  {last.reason}  {last.error_type}"
    output.console.print(head, style="bold", markup=False)
    output.tell(last.message, style="red", indent=4)
    output.say(f"    fingerprint {group.fingerprint}, last {ago} ago")
    for letter in group.newest:
        output.say(f"    {letter.id:<20} {fitted(name_of(letter), output.width, 25)}")
    if group.count > len(group.newest):
        output.say(f"    … and {group.count - len(group.newest)} more")
    output.say()


async def show(options: argparse.Namespace, output: Output) -> int:
    """Everything about one."""
    from console import system
    from console.explain import redis_client, strange_redis
    from shared.operations.dead_letters import DeadLetters

    found = _ID.fullmatch(options.id)
    if found is None or any(int(part) >= _MOST for part in found.groups()):
        raise CommandError(
            f"{options.id[:60]!r} is no id: `erni dead list` shows them (1764012345678-0)", code=2
        )
    settings = system.load()
    async with redis_client(settings) as redis:
        dead = DeadLetters(redis, lanes=settings.lanes)
        letter = await dead.get(options.id, agent=options.agent)
        if letter is None:
            where = f" of {options.agent}" if options.agent else ""
            raise CommandError(
                f"there is no dead letter {options.id}{where} (any more): replayed or discarded?"
                f"{await strange_redis(redis, settings)}"
            )
        fields = await dead.original(letter)
    link = trace_link(settings, letter.traceparent)
    if output.as_json:
        output.answer({"letter": letter, **_exactly(fields), "trace": link})
    else:
        _tell_letter(output, letter, fields, link)
    return 0


def _exactly(fields: Sequence[bytes]) -> dict[str, object]:
    """The original fields for the JSON document; also in base64 if they are not all text."""
    pairs = list(zip(fields[::2], fields[1::2], strict=False))
    document: dict[str, object] = {"original": [[_text(part) for part in pair] for pair in pairs]}
    try:
        b"".join(fields).decode()
    except UnicodeDecodeError:
        document["original_base64"] = [[base64.b64encode(part).decode() for part in pair] for pair in pairs]
    return document


def _text(raw: bytes) -> str:
    """Bytes for people, those that are no UTF-8 as escapes, without the secrets that addresses carry."""
    from shared.telemetry.redact import scrub

    return scrub(raw.decode("utf-8", "backslashreplace"))


def _in_short(raw: bytes, most: int) -> str:
    """The beginning of a field, for people, and how much there is of it."""
    return _text(raw) if len(raw) <= most else f"{_text(raw[:most])}… ({len(raw)} bytes)"


def trace_link(settings: Settings, traceparent: str) -> str:
    """Where people look at the trace; '' if there is none."""
    trace_id = traceparent[3:35]
    return f"{settings.jaeger_url.rstrip('/')}/trace/{trace_id}" if trace_id else ""


def _tell_letter(output: Output, letter: DeadLetter, fields: Sequence[bytes], link: str) -> None:
    rows = (
        ("dead letter", f"{letter.id} of {letter.agent}, entry {letter.entry_id} of {letter.stream}"),
        ("photo", one_line(" ".join(filter(None, (letter.file_name, letter.photo_id))) or name_of(letter))),
        ("session", letter.session_id or "-"),
        ("reason", f"{letter.reason} ({letter.error_type}), fingerprint {letter.fingerprint}"),
        ("failed", f"{durations.clock(letter.failed_at)}, at delivery {letter.deliveries}{_before(letter)}"),
        ("replayed", {0: "never", 1: "once"}.get(letter.replays, f"{letter.replays} times")),
        ("trace", link or "-"),
        ("consumer", f"{letter.consumer} ({letter.version})"),
    )
    output.tell(letter.message, style="bold red")
    output.say()
    for name, value in rows:
        output.tell(f"{name:<12} {value}", hang=13)
    for number, attempt in enumerate(letter.attempts, 1):
        output.tell(
            f"{'attempt ' + str(number):<12} {durations.clock(attempt.at)}  {attempt.message}", hang=13
        )
    if letter.answer:
        output.tell(f"{'it answered':<12} {one_line(letter.answer)}", hang=13)
    output.say()
    output.say("the entry as it came:")
    for field, content in zip(fields[: 2 * _FIELDS : 2], fields[1 : 2 * _FIELDS : 2], strict=False):
        output.say(f"  {_in_short(field, 80):<16} {_in_short(content, _SHOWN)}")
    if len(fields) > 2 * _FIELDS:
        output.say(f"  … and {len(fields) // 2 - _FIELDS} fields more (--json shows all of them)")
    output.say()
    if link:
        output.say(f"log lines    grep {letter.traceparent[3:35]} in the agents' logs")
    output.say(f"again        erni dead replay --fingerprint {letter.fingerprint}")


def _before(letter: DeadLetter) -> str:
    """Why there are more deliveries than attempts: only those of the last one are kept."""
    if letter.deliveries == 1 or not letter.attempts:
        return ""
    return "; the attempts below were made in that one, the others ended in a postponement or a crash"
