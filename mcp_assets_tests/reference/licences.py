"""The licences of what the platform installs, as a page of the reference, and which of them may be depended on."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import metadata

from mcp_assets_tests.constraints import RUNTIME, entries

ALLOWED = {
    "0BSD": "0BSD",
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "Apache-2.0": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "BSD-2-Clause": "BSD-2-Clause",
    "BSD-3-Clause": "BSD-3-Clause",
    "CC0-1.0": "CC0-1.0",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "LGPL-3.0-only": "LGPL-3.0-only",
    "MIT": "MIT",
    "MIT License": "MIT",
    "MIT-0": "MIT-0",
    "MPL-2.0": "MPL-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSF-2.0": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "Zlib": "Zlib",
}
"""Words of packages for a licence that Apache-2.0, the platform's own, may depend on, and the identifier of each."""

EXCEPTIONS = {
    "igraph": "GPL-2.0-or-later",
}
"""Packages of another licence, each explained on the page."""

_PAGE = """# Licences

mcp_assets is licensed under Apache-2.0. It depends on the packages below and contains none of their code.
A test refuses a package whose licence is not allowed here.
`make sbom` writes the same with versions, as a bill of materials in CycloneDX's form; `make audit` asks for known
vulnerabilities.

LGPL and MPL ask for something only when a changed copy of such a package is passed on.

**igraph** is under the GPL, version 2 or later.
Running the platform with it asks for nothing.
A copy of the platform that is passed on together with igraph, for example as a container image outside the own
organisation, is passed on under the terms of GPL-3.0, which Apache-2.0 allows.

| licence | packages |
|---|---|
"""


def refusals(licences: Mapping[str, str | None]) -> list[str]:
    """A sentence for each package whose licence is not allowed. `licences`: by package; None: it states none."""
    return [
        f"{package} is licensed under {licence or 'nothing that its metadata states'}: depend on another package, or "
        "explain it in mcp_assets_tests/reference/licences.py"
        for package, licence in licences.items()
        if package not in EXCEPTIONS and identifier(licence) is None
    ]


def identifier(licence: str | None) -> str | None:
    """The licence in identifiers of SPDX; None: some part of it is not allowed."""
    if licence is None:
        return None
    parts = re.split(r" (AND|OR) ", licence)
    if any(part not in ALLOWED for part in parts[::2]):
        return None
    return " ".join([ALLOWED.get(part, part) for part in parts])


def licence_of(package: str) -> str | None:
    """What the metadata of an installed package states; of several classifiers, which mean a choice, each."""
    stated = metadata(package)
    classifiers = [
        line.split(" :: ")[-1] for line in stated.get_all("Classifier") or () if line.startswith("License :: OSI")
    ]
    expression = stated.json.get("license_expression")
    # Older metadata may have the whole text of the licence in this field.
    first = str(stated.json.get("license") or "").strip().partition("\n")[0]
    return str(expression or "") or " OR ".join(sorted(classifiers)) or first or None


def of_runtime() -> dict[str, str | None]:
    """The licence of each package that constraints.txt pins."""
    return {package: licence_of(package) for package in entries(RUNTIME.read_text())}


def page() -> str:
    """The page: packages by licence."""
    by_licence: dict[str, list[str]] = defaultdict(list)
    for package, licence in of_runtime().items():
        by_licence[EXCEPTIONS.get(package) or identifier(licence) or str(licence)].append(package)
    return _PAGE + "".join(_row(name, by_licence[name]) for name in sorted(by_licence))


def _row(licence: str, packages: Iterable[str]) -> str:
    return f"| {licence} | {', '.join(sorted(packages))} |\n"
