"""Pins every dependency by version and hash: constraints.txt, constraints-dev.txt for what development adds to it, and
constraints-EXTRA.txt for what an extra of a deployment adds to it.

`python -m mcp_assets_tests.constraints` resolves all of them anew (`make constraints`). What is pinned already keeps
its version, as long as pyproject.toml allows it. Development installs the extras too, so that its file holds their
pins as well, with the same versions.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNTIME, DEVELOPMENT = ROOT / "constraints.txt", ROOT / "constraints-dev.txt"

EXTRAS = {extra: ROOT / f"constraints-{extra}.txt" for extra in ("kubernetes", "otel")}
"""The extras that a deployment may need, each with the file of its pins."""

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
        raise ValueError(f"with and without the extras, other versions are pinned of: {different}")
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
    _write_added(DEVELOPMENT, everything, runtime)
    for extra, file in EXTRAS.items():
        _write_added(file, _compiled(everything, "--extra", extra), runtime)


def _write_added(file: Path, pinned: str, runtime: str) -> None:
    beside = added(entries(pinned), entries(runtime))
    file.write_text("".join(beside[name] for name in sorted(beside)))


if __name__ == "__main__":
    main()
