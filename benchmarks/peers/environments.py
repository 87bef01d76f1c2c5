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
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, stdout=sys.stderr)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, "--requirement", peer.pins], check=True, stdout=sys.stderr)
        (folder / "complete").touch()
    return python
