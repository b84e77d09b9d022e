"""Lists the answers of every outside part: whom each concerns, whether it passes, and who learns of it.

docs/failures.md is made of this list: ``python -m shared.retry.failures > docs/failures.md``. A test lets a
server give each answer to the code that reads it, and compares what comes of it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

Side: TypeAlias = Literal["SharePoint", "vision", "source", "Redis", "machine"]
Concerns: TypeAlias = Literal["photo", "target", "part", "machine"]
Then: TypeAlias = Literal["again", "postponed", "dead letter", "released", "left to a person", "looked at"]

_SEEN: Final[dict[Then, str]] = {
    "again": "`erni status`, the agent's log",
    "postponed": "`erni photo show`, `erni status`",
    "dead letter": "`erni dead list`, the session's report",
    "released": "`erni status`, `/ready`, the agent's log",
    "left to a person": "the session's report",
    "looked at": "nobody: it is decided again at once",
}


class Failure(msgspec.Struct, frozen=True):
    """Hold one answer and what it means."""

    side: Side
    answer: str
    """A status, a class of errors, or words."""
    concerns: Concerns
    then: Then
    advice: str = ""

    @property
    def passing(self) -> bool:
        """Return whether another attempt may succeed without anybody changing the photo."""
        return self.then not in ("dead letter", "left to a person")


FAILURES: Final[tuple[Failure, ...]] = (
    Failure("SharePoint", "sign-in refused", "part", "again", "the AADSTS number says which setting"),
    Failure("SharePoint", "401", "part", "again", "check tenant and cloud"),
    Failure("SharePoint", "429", "part", "again", "wait: the app is throttled"),
    Failure("SharePoint", "503 with Retry-After", "part", "again", "wait: the app is throttled"),
    Failure("SharePoint", "no connection", "part", "again", "check the network and GRAPH_URL"),
    Failure("SharePoint", "unreadable", "part", "again", "a proxy may answer in its place"),
    Failure("SharePoint", "500", "target", "again", "wait: the library's server fails"),
    Failure("SharePoint", "502", "target", "again", "wait: the library's server fails"),
    Failure("SharePoint", "503", "target", "again", "wait: the library's server fails"),
    Failure("SharePoint", "504", "target", "again", "wait: the library's server fails"),
    Failure("SharePoint", "507", "target", "postponed", "make room in the site, or raise its quota"),
    Failure("SharePoint", "403", "target", "dead letter", "grant the app write access, then replay"),
    Failure(
        "SharePoint", "404", "target", "dead letter", "the library is gone: check the target, then replay"
    ),
    Failure("SharePoint", "423", "photo", "postponed", "check the file in, or close it"),
    Failure("SharePoint", "409", "photo", "looked at", "the name is taken, or the item has changed"),
    Failure("SharePoint", "412", "photo", "looked at", "the item has changed"),
    Failure("SharePoint", "400", "photo", "dead letter", "the message names the column"),
    Failure("SharePoint", "413", "photo", "dead letter", "make the photo smaller"),
    Failure("SharePoint", "a value the library rejects", "photo", "left to a person", "find another value"),
    Failure("SharePoint", "check-out or check-in refused", "photo", "left to a person", "publish it by hand"),
    Failure("vision", "401", "part", "again", "check VISION_API_KEY"),
    Failure("vision", "429", "part", "again", "wait: the service is asked too often"),
    Failure("vision", "500", "part", "again", "wait"),
    Failure("vision", "503 with Retry-After", "part", "again", "wait"),
    Failure("vision", "no connection", "part", "again", "check VISION_URL and the network"),
    Failure("vision", "quota used up", "part", "postponed", "pay the bill, or raise the quota"),
    Failure("vision", "budget used up", "part", "postponed", "raise VISION_BUDGET_DAY or _SESSION"),
    Failure("vision", "403", "part", "dead letter", "check key and model, then replay"),
    Failure("vision", "404", "part", "dead letter", "check VISION_URL and VISION_MODEL, then replay"),
    Failure("vision", "redirect", "part", "dead letter", "correct VISION_URL, then replay"),
    Failure("vision", "400 or 422 about a setting", "part", "dead letter", "the message names the setting"),
    Failure(
        "vision",
        "400 or 422 about the schema",
        "target",
        "dead letter",
        "set VISION_SCHEMA_FORM, then replay",
    ),
    Failure("vision", "400 or 422 about the picture", "photo", "dead letter", "the message says why"),
    Failure("vision", "413", "photo", "dead letter", "lower VISION_PREVIEW_SIDE"),
    Failure("vision", "content filter", "photo", "dead letter", "the service does not take this photo"),
    Failure("vision", "unreadable", "photo", "left to a person", "use a model that keeps to the schema"),
    Failure("vision", "cut off", "photo", "left to a person", "raise VISION_MAX_TOKENS"),
    Failure("source", "429", "target", "again", "wait"),
    Failure("source", "500", "target", "again", "wait"),
    Failure("source", "no connection", "target", "again", "check the address and the network"),
    Failure("source", "401", "photo", "dead letter", "publish an address that needs no sign-in"),
    Failure("source", "404", "photo", "dead letter", "publish the photo again with its new address"),
    Failure("Redis", "no connection", "machine", "released", "the agents go on when it answers"),
    Failure("Redis", "loading", "machine", "released", "the agents go on when it has loaded"),
    Failure("Redis", "out of memory", "machine", "released", "make room: `erni doctor` says what fills it"),
    Failure("Redis", "read-only", "machine", "released", "the address leads to a replica"),
    Failure("Redis", "refused command", "photo", "dead letter", "a bug, or a foreign value under our key"),
    Failure("machine", "disk full", "machine", "released", "free some space"),
    Failure("machine", "too many open files", "machine", "released", "raise the limit (ulimit -n)"),
    Failure(
        "machine",
        "TLS certificate",
        "part",
        "dead letter",
        "install the certificate's authority, then replay",
    ),
    Failure("machine", "any other error", "photo", "dead letter", "a bug: report it"),
)

_WHOSE: Final[dict[Concerns, str]] = {
    "photo": "this photo",
    "target": "this target",
    "part": "this part",
    "machine": "this machine",
}
_INTRODUCTION: Final = """\
# What each answer means

This list says for every answer of an outside part whom it concerns, whether it passes by itself, what
happens to the photo, and where people see it. A **target** is one library, site or host; a **part** is
SharePoint, the vision service or a source as a whole. A target that fails makes its own photos wait. A part
that fails stops the reading of the agents that need it.

- **again**: three attempts, 4 to 10 seconds apart. If SharePoint, one of its libraries or the vision service
  answers nobody, the photo is postponed and no attempt is used up. So is a photo whose source's host has
  failed five times in a row. Any other photo is a dead letter after its third attempt.
- **postponed**: the photo comes back by itself. `erni photo show` says why it waits, after how many attempts,
  and until when. After 24 hours of postponements it is a dead letter.
- **dead letter**: the photo waits for a person. If a target or part refuses several photos in a row alike, no
  photo is to blame: the next ones are postponed, and single ones probe.
- **released**: another process takes the photo, and this one stops reading for a while.
- **looked at**: the item is read and decided again in the same attempt.

The list is made by `python -m shared.retry.failures`.

| side | answer | concerns | passes | then | people see it in | what to do |
| --- | --- | --- | --- | --- | --- | --- |
"""


def page() -> str:
    """Return docs/failures.md."""
    return _INTRODUCTION + "".join(_row(one) for one in FAILURES)


def _row(one: Failure) -> str:
    passes = "yes" if one.passing else "no"
    return (
        f"| {one.side} | {one.answer} | {_WHOSE[one.concerns]} | {passes} | {one.then} | {_SEEN[one.then]} |"
        f" {one.advice} |\n"
    )


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - the page is the output
