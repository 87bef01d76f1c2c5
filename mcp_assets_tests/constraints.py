"""Pins every dependency by version and hash: constraints.txt, and constraints-dev.txt for what development adds.

`python -m mcp_assets_tests.constraints` resolves both anew (`make constraints`). What is pinned already keeps its
version, as long as pyproject.toml allows it.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNTIME, DEVELOPMENT = ROOT / "constraints.txt", ROOT / "constraints-dev.txt"

_COMPILE = (
    *("--quiet", "--allow-unsafe", "--strip-extras", "--generate-hashes", "--no-annotate", "--no-header"),
    # No address of a package index stands in the files.
    *("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"),
    "--all-build-deps",
)


def entries(text: str) -> dict[str, str]:
    """The pins of a constraints file: each package's name, and its lines, of which the first has the version."""
    found: dict[str, str] = {}
    name = None
    for line in text.splitlines(keepends=True):
        if line.startswith((" ", "\t")):
            assert name is not None
            found[name] += line
        elif line.strip() and not line.startswith("#"):
            name = line.partition("==")[0]
            found[name] = line
    return found


def added(everything: Mapping[str, str], runtime: Mapping[str, str]) -> dict[str, str]:
    """What `everything` pins beside `runtime`. Raises ValueError if they pin different versions of one package."""
    different = [name for name, lines in runtime.items() if everything.get(name) != lines]
    if different:
        raise ValueError(f"with and without the development tools, other versions are pinned of: {different}")
    return {name: lines for name, lines in everything.items() if name not in runtime}


def _compiled(pinned: str, *options: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "constraints.txt"
        output.write_text(pinned)
        subprocess.run(
            [
                *(sys.executable, "-m", "piptools", "compile", *_COMPILE, *options),
                *("--output-file", str(output), "pyproject.toml"),
            ],
            cwd=ROOT,
            check=True,
        )
        return output.read_text()


def main() -> None:
    everything = _compiled(RUNTIME.read_text() + DEVELOPMENT.read_text(), "--all-extras")
    runtime = _compiled(everything)
    RUNTIME.write_text("".join(entries(runtime).values()))
    development = added(entries(everything), entries(runtime))
    DEVELOPMENT.write_text("".join(development[name] for name in sorted(development)))


if __name__ == "__main__":
    main()
