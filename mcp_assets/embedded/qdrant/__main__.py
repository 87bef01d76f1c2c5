"""`python -m mcp_assets.embedded.qdrant`: serve one storage directory until SIGTERM or SIGINT."""

import argparse
import gc
import logging
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from mcp_assets.embedded.qdrant import STRICT_VARIABLE
from mcp_assets.embedded.qdrant.access import Access
from mcp_assets.embedded.qdrant.api import application
from mcp_assets.embedded.qdrant.errors import RequestError
from mcp_assets.embedded.qdrant.storage import Storage, StorageDamagedError, StorageInUseError
from mcp_assets.embedded.qdrant.upkeep import Upkeep
from mcp_assets.logs import use_json_if_set

_log = logging.getLogger("qdrant")

_THREADS = 4
# Longer than clients keep an idle connection, so that they, not the server, drop it.
_KEEP_ALIVE_S = 75
_SHUTDOWN_S = 30


def _stop(_signum: int, _frame: FrameType | None) -> NoReturn:
    """Before serving and after it: uvicorn takes the signal while it serves, and raises it again when it is done."""
    raise SystemExit(0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mcp_assets.embedded.qdrant", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="HTTP without TLS: keep to loopback addresses")
    parser.add_argument("--port", type=int, default=6333, help="0 takes a free one, which the first log line names")
    parser.add_argument("--storage", type=Path, required=True, help="directory of the collections; made if absent")
    parser.add_argument(
        "--strict",
        action="store_true",
        default=os.environ.get(STRICT_VARIABLE) == "1",
        help=f"new collections refuse filters on keys without an index, as in Qdrant Cloud ({STRICT_VARIABLE}=1)",
    )
    parser.add_argument("--key-file", type=Path, help="file with the key that clients have to send as `api-key`")
    parser.add_argument("--mark", help="shown at /, so that clients know this server from another one on its address")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s qdrant: %(message)s")
    use_json_if_set()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        listening = socket.create_server((arguments.host, arguments.port), backlog=512)
    except OSError as error:
        _log.error("cannot listen on %s:%s: %s; name another --port", arguments.host, arguments.port, error.strerror)
        return 1
    with listening:
        try:
            storage = Storage.open(arguments.storage, strict=arguments.strict)
        except (StorageInUseError, StorageDamagedError, RequestError, OSError) as error:
            _log.error("cannot open the storage: %s", error)
            return 1
        try:
            key = None if arguments.key_file is None else arguments.key_file.read_text().strip()
            _serve(storage, listening, arguments.storage, arguments.mark, key)
        finally:
            storage.close()
            _log.info("stopped")
    return 0


def _serve(storage: Storage, listening: socket.socket, directory: Path, mark: str | None, key: str | None) -> None:
    upkeep = Upkeep(storage.collections)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="request") as pool:
        server = uvicorn.Server(
            uvicorn.Config(
                Access(application(storage, pool, upkeep.request_seen, mark), key),
                http="httptools",
                ws="none",
                lifespan="off",
                log_level="error",
                access_log=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_SHUTDOWN_S,
            )
        )
        # Objects that are loaded now stay, so that the garbage collector need not traverse them.
        gc.freeze()
        upkeep.start()
        try:
            host, port = listening.getsockname()[:2]
            _log.info("serving %s (%d collections) on http://%s:%s", directory, len(storage.names()), host, port)
            server.run(sockets=[listening])
        finally:
            upkeep.stop()


if __name__ == "__main__":
    sys.exit(main())
