"""Speaks the Model Context Protocol on standard input and output, with the official SDK."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import structlog
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from console.errors import CommandError
from console.explain import explain
from console.mcp import inputs
from console.mcp.answers import WARNING, TooLongError, plain
from console.mcp.callers import caller_of
from console.mcp.tools import Tools
from shared.operations.access_keys import Uses

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from redis.asyncio import Redis

    from console.mcp.callers import Caller
    from console.mcp.tools import Tool
    from shared.settings import Settings

_INSTRUCTIONS: Final = (
    "Look at the photo pipeline of Erni Foto Agency: five agents turn photos of building sites"
    " into SharePoint entries. The tools only read: begin with pipeline_status or search, read"
    " the cause with dead_letter_groups and dead_letter_show, then propose to a person what to"
    " repair and which replay to type. " + WARNING
)
_LONGEST_ERROR: Final = 1000
_log = structlog.get_logger(__name__)


async def serve(redis: Redis, settings: Settings, key: str) -> None:
    """Answer calls until standard input ends. `key`: of the gateway, '' for a viewer."""
    served = _Served(redis, settings, key)
    server = Server(
        "erni",
        version=version("erni-foto-agency"),
        instructions=_INSTRUCTIONS,
        on_list_tools=served.list_tools,
        on_call_tool=served.call_tool,
    )
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


class _Served:
    """What the SDK asks for."""

    def __init__(self, redis: Redis, settings: Settings, key: str) -> None:
        self._redis = redis
        self._key = key
        self._uses = Uses(redis)
        self._tools = {tool.name: tool for tool in Tools(redis, settings).all()}

    async def list_tools(
        self, _: ServerRequestContext[Any], __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """Return every tool: who may call it is checked when it is called."""
        return types.ListToolsResult(tools=[_described(tool) for tool in self._tools.values()])

    async def call_tool(
        self, _: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        """Run one tool. What goes wrong is a sentence in the result, as the protocol wants it."""
        try:
            text, wrong = await self._answer(params), False
        except TooLongError as error:
            text, wrong = str(error), True
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends one call, and not the server
            sentence = explain(error) if not isinstance(error, CommandError) else error
            if sentence is None:
                _log.exception("a tool failed", tool=params.name)
                sentence = CommandError("this is a mistake of erni mcp: its standard error has the details")
            text, wrong = plain(str(sentence), _LONGEST_ERROR), True
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=wrong)

    async def _answer(self, params: types.CallToolRequestParams) -> str:
        tool = self._tools.get(params.name)
        if tool is None:
            raise CommandError(f"there is no such tool: there are {', '.join(self._tools)}")
        caller = await caller_of(self._redis, self._key, self._uses)
        _check(tool, caller)
        return await tool.run(caller, inputs.read(params.arguments, tool.takes))


def _check(tool: Tool, caller: Caller) -> None:
    """Raise CommandError if the role of the caller does not allow a tool."""
    if not (caller.sees_all or tool.publishers):
        raise CommandError(
            f"the key has the role {caller.role}, which sees its own photos only: {tool.name} needs the"
            " role viewer, operator or admin"
        )


def _described(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        description=tool.description,
        input_schema=inputs.schema(tool.takes),
        annotations=types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )
