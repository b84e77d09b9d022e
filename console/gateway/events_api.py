"""`POST /v1/events`: CloudEvents in the three modes of their HTTP binding; `OPTIONS`: their handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from console.gateway import bodies, cloud_events, problems
from console.gateway.access import PUBLISHERS
from console.gateway.answers import Accepted, AcceptedBatch, json_answer
from console.gateway.cloud_events import MediaTypeError, NotACloudEventError
from console.gateway.observing import EVENTS, trace_fields
from console.gateway.problems import Problem, ProblemError
from console.gateway.publishing import Refused, refused

if TYPE_CHECKING:
    from console.gateway.access import Caller, Door
    from console.gateway.cloud_events import CloudEvent
    from console.gateway.publishing import Intake
    from events.publisher import Prepared

MAX_BODY_BYTES: Final = 8_000_000
MAX_BATCH: Final = 1_000
BODY_SECONDS: Final = 30.0


class EventsApi:
    """Handles the requests to /v1/events."""

    def __init__(self, door: Door, intake: Intake) -> None:
        self._door = door
        self._intake = intake

    async def publish(self, request: web.Request) -> web.Response:
        """Publish one event or a batch; 202 when Redis has all of it. Raises Problem."""
        caller = await self._door.admit(request, PUBLISHERS)
        content_type = request.headers.get("Content-Type", "")
        try:
            mode = cloud_events.mode_of(content_type)
        except MediaTypeError as error:
            raise Problem(problems.MEDIA_TYPE_UNKNOWN, str(error)) from None
        body = await bodies.whole(
            request,
            MAX_BODY_BYTES,
            seconds=BODY_SECONDS,
            remedy="send smaller batches, and the bytes of a photo to POST /v1/photos",
        )
        if mode == "batch":
            return await self._batch(caller, request, body)
        try:
            if mode == "binary":
                received = cloud_events.read_binary(request.raw_headers, body)
            else:
                received = cloud_events.read_structured(body)
        except NotACloudEventError as error:
            raise Problem(problems.NOT_A_CLOUDEVENT, str(error), errors=[_error(error)]) from None
        try:
            around = trace_fields(request, is_one_photo=True)
            event, file_name = self._intake.prepare(caller, received, around)
        except Refused as refusal:
            raise Problem(refusal.kind, str(refusal), errors=[refusal.error]) from None
        accepted = await self._intake.publish(received.attributes["source"], event, file_name)
        return accepted_answer(accepted)

    async def _batch(self, caller: Caller, request: web.Request, body: bytes) -> web.Response:
        try:
            received = cloud_events.read_batch(body)
        except NotACloudEventError as error:
            raise Problem(problems.NOT_A_CLOUDEVENT, str(error), errors=[_error(error)]) from None
        request[EVENTS] = len(received)
        if len(received) > MAX_BATCH:
            raise Problem(
                problems.TOO_LARGE,
                f"the batch has {len(received):,} events; {MAX_BATCH:,} are allowed: send it in parts",
            )
        events = self._all_prepared(caller, received, request)
        if not events:
            return json_answer(AcceptedBatch(events=[]), status=202)
        first = received[0]
        source = first.attributes["source"] if not isinstance(first, NotACloudEventError) else ""
        accepted = await self._intake.publish_all(source, events)
        headers = {"Idempotent-Replayed": "true"} if all(one.replayed for one in accepted) else {}
        return json_answer(AcceptedBatch(events=accepted), status=202, headers=headers)

    def _all_prepared(
        self, caller: Caller, received: list[CloudEvent | NotACloudEventError], request: web.Request
    ) -> list[tuple[Prepared, str]]:
        """Return the entries of all events. Raises Problem that names every one that cannot be published."""
        events: list[tuple[Prepared, str]] = []
        errors: list[ProblemError] = []
        kinds: set[str] = set()
        source = ""
        around = trace_fields(request, is_one_photo=False)
        for number, one in enumerate(received):
            try:
                event = _event_of(one, source)
                source = event.attributes["source"]
                events.append(self._intake.prepare(caller, event, around))
            except Refused as refusal:
                kinds.add(refusal.kind.name)
                errors.append(
                    ProblemError(
                        detail=str(refusal),
                        pointer=f"/{number}{refusal.error.pointer}",
                        type=problems.PAGES + refusal.kind.name,
                    )
                )
        if errors:
            only_foreign = kinds == {problems.SOURCE_NOT_ALLOWED.name}
            raise Problem(
                problems.SOURCE_NOT_ALLOWED if only_foreign else problems.BATCH_REFUSED,
                f"{len(errors)} of {len(received)} events cannot be published, so none was",
                errors=errors,
            )
        return events

    async def handshake(self, request: web.Request) -> web.Response:
        """Agree to be a delivery target, and at which rate.

        https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md § 4. No key is needed:
        whoever delivers needs one. A callback is not called, because its address could lead anywhere.
        """
        headers = {"Allow": "OPTIONS, POST"}
        if origin := request.headers.get("WebHook-Request-Origin", "").strip():
            headers["WebHook-Allowed-Origin"] = origin
            headers["WebHook-Allowed-Rate"] = self._door.allowed_rate
        return web.Response(headers=headers)


def accepted_answer(accepted: Accepted) -> web.Response:
    """Return the answer to a single event."""
    headers = {"Location": accepted.photo}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    return json_answer(accepted, status=202, headers=headers)


def _error(error: NotACloudEventError) -> ProblemError:
    return ProblemError(detail=str(error), pointer=error.pointer)


def _event_of(received: CloudEvent | NotACloudEventError, source: str) -> CloudEvent:
    """Return an event of a batch; `source` is that of the events before it, or ''. Raises Refused."""
    if isinstance(received, NotACloudEventError):
        raise Refused(problems.NOT_A_CLOUDEVENT, _error(received))
    if source and received.attributes["source"] != source:
        raise refused("a batch has events of one source: send those of another one separately", "/source")
    return received
