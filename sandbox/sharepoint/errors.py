"""What Graph answers when it refuses, with the body it does it in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.sharepoint.model import JsonObject


class GraphError(Exception):
    """An answer that is a refusal.

    `code` is one of the codes of Microsoft's "errors" page, `inner` the more precise one within it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        inner: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.inner = inner
        self.headers = dict(headers or {})

    def body(self, *, request_id: str, client_request_id: str, date: str, storage: bool) -> JsonObject:
        """The error's JSON. The storage endpoints spell it ``innererror``; clients must read both."""
        inner: JsonObject = {"date": date, "request-id": request_id, "client-request-id": client_request_id}
        if self.inner:
            inner = {"code": self.inner, **inner}
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                ("innererror" if storage else "innerError"): inner,
            }
        }


def invalid(message: str, inner: str | None = None) -> GraphError:
    """400 invalidRequest."""
    return GraphError(400, "invalidRequest", message, inner)


def not_found(message: str = "The resource could not be found.", inner: str | None = None) -> GraphError:
    """404 itemNotFound."""
    return GraphError(404, "itemNotFound", message, inner)


def name_taken() -> GraphError:
    """409 nameAlreadyExists."""
    return GraphError(409, "nameAlreadyExists", "An item with the same name already exists under the parent.")


def being_uploaded(*, replaces: bool) -> GraphError:
    """409 nameAlreadyExists too, but about an upload session that is open; only the message differs.

    Sources: microsoft-graph-docs-contrib issues 412 (a new file) and 6558 (a file that exists).
    """
    message = (
        "An upload session already exists for this file"
        if replaces
        else "A file with the same name is currently being uploaded."
        " Change the filename and try to save again."
    )
    return GraphError(409, "nameAlreadyExists", message)


def modified() -> GraphError:
    """412: the item is not in the state that If-Match names any more."""
    return GraphError(
        412, "resourceModified", "ETag does not match current item's value", "entityTagDoesNotMatch"
    )


def unknown_property(name: str, kind: str) -> GraphError:
    """400: a name in ``$select`` that the type does not have (OData 4.01, part 2, 5.1.4)."""
    return invalid(
        f"Parsing OData Select and Expand failed: Could not find a property named '{name}' on type"
        f" 'microsoft.graph.{kind}'."
    )


def denied() -> GraphError:
    """403: a good token that may not do this."""
    return GraphError(403, "accessDenied", "Access denied")


def not_allowed(method: str) -> GraphError:
    """405: the address exists, the method does not."""
    return GraphError(405, "notAllowed", f"The method {method} is not allowed on this resource.")
