"""Known vulnerabilities of the pinned packages, by pip-audit: `make audit`.

It asks a service on the network, so that it is no part of the tests. Exits with 1 if a package has a known
vulnerability, and with 3 if the service could not be asked: nothing is known then.
"""

import subprocess
import sys

from mcp_assets_tests.constraints import DEVELOPMENT, RUNTIME

COULD_NOT_ASK = 3


def main(*options: str) -> int:
    """`options`: further options of pip-audit, such as `--vulnerability-service osv`."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"),
            *("--requirement", str(RUNTIME), "--requirement", str(DEVELOPMENT), *options),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout)
    has_answer = done.returncode == 0 or "known vulnerabilit" in done.stderr
    if not has_answer:
        lines = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"]
        sys.stderr.write(f"Nothing is known, because the service of vulnerabilities could not be asked: {lines[-1]}\n")
        return COULD_NOT_ASK
    sys.stderr.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
