"""ServerOutput: the bounded log of one server."""

import asyncio
import os
from pathlib import Path

from mcp_assets.embedded.supervisor import ServerOutput


def test_a_log_is_bounded_and_keeps_the_newest_lines(tmp_path: Path) -> None:
    async def write_5000_bytes() -> str:
        output = ServerOutput(tmp_path / "server.log", max_bytes=1000)
        for number in range(50):
            os.write(output.write_end, f"{number:099}\n".encode())
            output.last_lines()
        newest = output.last_lines()
        output.close()
        return newest

    newest = asyncio.run(write_5000_bytes())
    assert newest.endswith(f"{49:099}")
    assert (tmp_path / "server.log").read_text().endswith(f"{49:099}\n")
    assert 1000 <= sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000


def test_what_a_server_writes_reaches_its_log_while_it_runs(tmp_path: Path) -> None:
    async def write_once() -> str:
        output = ServerOutput(tmp_path / "server.log")
        os.write(output.write_end, b"ready \xff\n")
        while not (text := (tmp_path / "server.log").read_text()):
            await asyncio.sleep(0.001)
        output.close()
        return text

    assert asyncio.run(asyncio.wait_for(write_once(), timeout=10)) == "ready �\n"
