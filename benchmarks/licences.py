"""Lists the licences of what is installed with the project, by the packages' metadata; writes a section of a document.

``python -m benchmarks.licences --out docs/licences.md``
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.scoring import check_section, write_section

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.metadata import Distribution

PROJECT = Path("pyproject.toml")
SECTION = "licences"
LONGEST = 60
"""Characters of a metadata field that names a licence; a longer one is the licence's text."""
WORDS = {"Apache": "Apache-2.0", "Apache 2.0": "Apache-2.0", "Apache 2.0 License": "Apache-2.0",
         "Apache Software License": "Apache-2.0", "BSD-3": "BSD-3-Clause", "3-Clause BSD License": "BSD-3-Clause",
         "BSD 3-Clause License": "BSD-3-Clause", "BSD 2-Clause License": "BSD-2-Clause", "MIT License": "MIT",
         "BSD License": "BSD", "ISC License": "ISC"}  # fmt: skip
"""One spelling of what packages call in several ways."""


def licence_of(package: str) -> str:
    """Returns the licence that the metadata of an installed package name; ``not stated`` where they name none."""
    metadata = distribution(package).metadata
    classifiers = [each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier") or [] if "License ::" in each]
    field = (metadata.get_all("License") or [""])[0].strip()
    named = field if 0 < len(field) <= LONGEST and "\n" not in field else ""
    found = (
        (metadata.get_all("License-Expression") or [""])[0]
        or named
        or ", ".join(each for each in classifiers if "OSI" not in each)
    )
    return WORDS.get(found, found) or "not stated"


def needed_here(lines: list[str], extras: Iterable[str] = ()) -> list[Requirement]:
    """Returns those requirements that hold on this machine, without extras or with some of them."""
    needed = [Requirement(line) for line in lines]
    asked = ["", *extras]
    return [
        each for each in needed if each.marker is None or any(each.marker.evaluate({"extra": one}) for one in asked)
    ]


def names_of(needed: Iterable[Requirement]) -> list[str]:
    """Returns the names of the packages that are required."""
    return [canonicalize_name(each.name) for each in needed]


def found(package: str) -> Distribution:
    """Returns an installed package.

    Raises:
        SystemExit: if it is not there.
    """
    try:
        return distribution(package)
    except PackageNotFoundError as error:
        raise SystemExit(f"{package} is not installed; make setup installs all") from error


def closure(needed: list[Requirement]) -> list[str]:
    """Returns the names of packages that are required, of those that they require, and so on, in alphabetical order."""
    known: set[tuple[str, frozenset[str]]] = set()
    waiting = list(needed)
    while waiting:
        each = waiting.pop()
        if (key := (canonicalize_name(each.name), frozenset(each.extras))) not in known:
            known.add(key)
            waiting += needed_here(found(each.name).requires or [], each.extras)
    return sorted({name for name, _ in known})


def table(packages: list[str], named: list[str]) -> str:
    """Returns a table of packages; those that the project names itself are bold."""
    rows = ["| package | version | licence |", "|---|---|---|"]
    for package in packages:
        version = re.sub(r"\+.*", "", found(package).version)
        rows.append(f"| {f'**{package}**' if package in named else package} | {version} | {licence_of(package)} |")
    return "\n".join(rows)


def text() -> str:
    """Returns the section."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    direct, extras = needed_here(project["dependencies"]), project["optional-dependencies"]
    needed = closure(direct)
    # An extra may name the project itself, with other extras.
    named = {name for lines in extras.values() for name in names_of(needed_here(lines))}
    more = named - set(needed) - {project["name"]}
    return "\n".join(
        [
            "`python -m benchmarks.licences --out docs/licences.md`", "",
            "Needed to run, directly (bold) or by another:", "", table(needed, names_of(direct)), "",
            f"Named by the extras ({', '.join(sorted(extras))}), for tests, checks, logging and these pages:", "",
            table(sorted(more), []), "",
        ]
    )  # fmt: skip


def main() -> None:
    """Prints the section, or writes it into a document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE", help="document with the marks of the section")
    arguments = parser.parse_args()
    if arguments.out is None:
        sys.stdout.write(text())
        return
    check_section(arguments.out, SECTION)
    write_section(arguments.out, SECTION, text())


if __name__ == "__main__":
    main()
