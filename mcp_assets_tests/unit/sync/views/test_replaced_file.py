"""A replaced file: whole at its place or not there at all, whatever fails."""

import errno
import os
from pathlib import Path

import pytest

from mcp_assets.sync.views import replaced_file as module
from mcp_assets.sync.views.replaced_file import replaced_file


def write(path: Path, text: str) -> None:
    with replaced_file(path) as file:
        file.write_text(text)


def test_the_file_takes_its_place_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "graph.csv"
    path.write_text("old")
    with replaced_file(path) as file:
        file.write_text("new")
        assert file.parent == tmp_path
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "graph.csv"
    path.write_text("old")
    with pytest.raises(type(error)), replaced_file(path) as file:
        file.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_disk_at_the_end_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.csv"
    path.write_text("old")

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_sync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    plain, protected = tmp_path / "plain", tmp_path / "protected"
    before = os.umask(0o027)
    try:
        write(plain, "new")
    finally:
        os.umask(before)
    assert plain.stat().st_mode & 0o777 == 0o640
    protected.write_text("old")
    protected.chmod(0o600)
    write(protected, "new")
    assert protected.stat().st_mode & 0o777 == 0o600


def test_of_a_symbolic_link_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link, dangling = tmp_path / "real" / "graph.csv", tmp_path / "link", tmp_path / "dangling"
    real.write_text("old")
    link.symlink_to(real)
    dangling.symlink_to(tmp_path / "real" / "later.csv")
    write(link, "new")
    write(dangling, "new")
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert real.read_text() == "new"
    assert sorted(file.name for file in real.parent.iterdir()) == ["graph.csv", "later.csv"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with replaced_file(pipe) as file:
        assert file == pipe
    assert pipe.is_fifo()


def test_a_folder_and_a_folder_that_is_absent_are_errors(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write(tmp_path, "new")
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "absent" / "graph.csv", "new")
    looped = tmp_path / "loop"
    looped.symlink_to(looped)
    with pytest.raises(OSError, match="symbolic links"):
        write(looped, "new")


def test_a_file_that_is_protected_against_writing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.csv"
    path.write_text("old")
    # Root may write every file, and tests may run as root.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError):
        write(path, "new")
    assert path.read_text() == "old"
