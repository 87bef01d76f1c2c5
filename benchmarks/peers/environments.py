"""Environments: a virtual environment for each system that is compared with ours, made once and kept in the cache."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Peer:
    """A system, the distribution that its version is named after, and where its documentation says how it is used."""

    name: str
    title: str
    distribution: str
    """Empty for ours, which runs in this environment."""

    @property
    def script(self) -> Path:
        return HERE / f"run_{self.name}.py"

    @property
    def pins(self) -> Path:
        """The versions of all packages of its environment."""
        return HERE / f"{self.name}.txt"

    @property
    def version(self) -> str:
        if not self.distribution:
            return metadata.version("mcp_assets")
        pinned = (line.partition("==") for line in self.pins.read_text().splitlines())
        return next(version for name, _, version in pinned if name == self.distribution)


PEERS = (
    Peer("ours", "mcp_assets", ""),
    Peer("langchain", "LangChain", "langchain-core"),
    Peer("llamaindex", "LlamaIndex", "llama-index-core"),
    Peer("cocoindex", "CocoIndex", "cocoindex"),
)


def interpreter(peer: Peer) -> Path:
    """The Python of the environment of `peer`, which is made if it is absent or its pins have changed.

    Raises:
        subprocess.CalledProcessError: the packages could not be installed.
    """
    if not peer.distribution:
        return Path(sys.executable)
    digest = hashlib.sha256(peer.pins.read_bytes()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mcp_assets" / "peers" / f"{peer.name}-{sys.version_info[0]}.{sys.version_info[1]}-{digest}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for command in _commands(folder, python, peer.pins):
            subprocess.run(command, check=True, stdout=sys.stderr)
        (folder / "complete").touch()
    return python


def _commands(folder: Path, python: Path, pins: Path) -> list[list[str | Path]]:
    """What makes an environment: uv where it is, because it takes seconds where pip takes a minute."""
    # The pins are all packages, so that nothing has to be resolved.
    options: list[str | Path] = ["--quiet", "--no-deps", "--requirement", pins]
    uv = shutil.which("uv")
    if uv is not None:
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, folder],
            [uv, "pip", "install", "--python", python, *options],
        ]
    return [
        [sys.executable, "-m", "venv", folder],
        [python, "-m", "pip", "install", "--disable-pip-version-check", *options],
    ]
