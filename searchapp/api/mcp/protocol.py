"""One message of the protocol through the official SDK's server, which is ASGI, from a view, which
is not. Imported with the first call: the SDK is large, and most processes never serve it.

Every message gets a server, a session and an event loop of its own, so that nothing is kept between
two calls and none sees another's key. The loop runs beside the view's thread; what a tool does runs
in the view's thread, which holds the database connection.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import mcp.types as wire
from asgiref.sync import async_to_sync, sync_to_async
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from starlette.types import Message

from ..auth import Caller
from ..refusals import Refusal
from .documents import add_document, list_collections, read_document
from .searches import explain_result, rerank, search
from .tools import TOOLS, Record, Tool, called

__all__ = [
    "Post",
    "Reply",
    "add_document",
    "answer",
    "explain_result",
    "list_collections",
    "read_document",
    "rerank",
    "search",
]

INSTRUCTIONS = (
    "Podium searches collections of documents. Call list_collections for their names, search for "
    "passages, read_document for what stands around one. Tell the user when rerank.status of a "
    "search is not “ok”: its order is less reliable then."
)
Context = ServerRequestContext[Any]


@dataclass(frozen=True)
class Post:
    """A POST to this address. `headers`: names in lower case. `origin`: how this server is reached,
    such as https://search.example.org; pages of other origins are refused."""

    body: bytes
    headers: dict[str, str]
    host: str
    origin: str


@dataclass
class Reply:
    """What the SDK answers."""

    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            self.headers = {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in message["headers"]
            }
        else:
            self.body += message.get("body", b"")


def answer(caller: Caller, post: Post) -> Reply:
    """Reads the message, runs what it asks for, and returns when that is done."""
    reply: Reply = async_to_sync(_served)(caller, post)
    return reply


async def _served(caller: Caller, post: Post) -> Reply:
    security = TransportSecuritySettings(allowed_hosts=[post.host], allowed_origins=[post.origin])
    manager = StreamableHTTPSessionManager(
        app=_server(caller),
        json_response=True,
        stateless=True,
        security_settings=security,
        max_request_body_size=len(post.body) + 1,  # the view has kept to our own limit
    )
    reply = Reply()
    headers = {**post.headers, "host": post.host}

    async def receive() -> Message:
        return {"type": "http.request", "body": post.body, "more_body": False}

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": post.origin.partition(":")[0],
        "path": "/mcp",
        "raw_path": b"/mcp",
        "root_path": "",
        "query_string": b"",
        "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()],
    }
    async with manager.run():
        await manager.handle_request(scope, receive, reply.send)
    return reply


def _server(caller: Caller) -> Server[Any]:
    """The tools as far as the caller's key opens them."""

    async def listed(ctx: Context, params: wire.PaginatedRequestParams | None) -> Any:
        open_tools = [each for each in TOOLS.values() if each.open_to(caller) is None]
        return wire.ListToolsResult(tools=[_described(each) for each in open_tools])

    async def call(ctx: Context, params: wire.CallToolRequestParams) -> wire.CallToolResult:
        wanted = TOOLS.get(params.name)
        if wanted is None:
            raise MCPError(wire.INVALID_PARAMS, f"There is no tool “{params.name[:100]}”.")
        run = sync_to_async(called, thread_sensitive=True)
        return _result(await run(caller, wanted, params.arguments or {}))

    return Server(
        "podium",
        title="Podium",
        version="1",
        instructions=INSTRUCTIONS,
        on_list_tools=listed,
        on_call_tool=call,
    )


def _described(tool: Tool) -> wire.Tool:
    return wire.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema(),
        annotations=wire.ToolAnnotations(
            title=tool.title,
            read_only_hint=not tool.changes,
            destructive_hint=tool.changes,
            open_world_hint=False,
        ),
    )


def _result(found: Record | Refusal) -> wire.CallToolResult:
    """Also as text, for assistants that read nothing else."""
    if isinstance(found, Refusal):
        told = {"code": found.code, "status": found.status, "message": found.sentence}
        if found.retry_after is not None:
            told["retry_after"] = round(found.retry_after, 1)
        found, failed = {"error": told}, True
    else:
        failed = False
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    return wire.CallToolResult(
        content=[wire.TextContent(type="text", text=text)],
        structured_content=found,
        is_error=failed,
    )
