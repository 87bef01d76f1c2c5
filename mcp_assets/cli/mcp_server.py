"""The command `mcp`: serves the index to assistants and other programs by the Model Context Protocol."""

import ipaddress
from typing import Annotated

import typer

from mcp_assets.cli.connect import connected
from mcp_assets.cli.console import say_progress


def mcp(
    http: Annotated[bool, typer.Option("--http", help="Serve by HTTP, at /mcp, and not by standard input.")] = False,
    host: Annotated[str, typer.Option("--host", help="Address to listen on, with --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="Port, with --http.")] = 8765,
    allowed: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="Name and port by which clients reach it, such as mcp.example.org:443."),
    ] = None,
) -> None:
    """Serve search, entities and relationships to assistants by the Model Context Protocol.

    It only reads, unless MCP_ASSETS_MCP_WRITES is set. It also answers requests for possible duplicates by NATS, on
    entity.duplicates.request.
    """
    from mcp_assets.mcp_server.duplicate_requests import answering_duplicates
    from mcp_assets.mcp_server.server import http_app, make_server
    from mcp_assets.settings import load_settings

    with connected(reads_only=not load_settings().mcp_writes) as platform:
        secret = platform.settings.mcp_token
        token = secret.get_secret_value() if secret is not None else None
        if http and token is None and not _is_loopback(host):
            raise typer.BadParameter(
                f"other machines reach --host {host}: set MCP_ASSETS_MCP_TOKEN, which each client then has to send"
            )
        server = make_server(platform)
        with answering_duplicates(platform):
            if not http:
                server.run("stdio")
                return
            import uvicorn

            say_progress(f"serving MCP at http://{host}:{port}/mcp")
            app = http_app(server, token=token, host=host, hosts=allowed or [])
            uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
