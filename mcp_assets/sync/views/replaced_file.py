"""Replaced file: a file is written beside its place and moved there when it is whole; an error keeps the old one."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """The path of an empty file beside `path`, which takes the place of `path` when the block ends without an error.

    After an error, `path` is as it was, and no temporary file stays. Of a symbolic link, the file that it leads to is
    replaced. A device or a pipe cannot be replaced: its own path is given.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    mode = _mode_of(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if mode is not None and not stat.S_ISREG(mode):
        yield path
        return
    place = Path(os.path.realpath(path))
    if mode is not None and not os.access(place, os.W_OK):
        # A rename needs no permission to write the file, but one who protected it against writing meant to keep it.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    temporary = place.with_name(f".mcp-assets-{secrets.token_hex(8)}")
    # Not tempfile, whose files only their owner may read: this one is the export.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        yield temporary
        _sync(temporary)
        temporary.replace(place)
    except BaseException:  # an interrupted export leaves no file either
        temporary.unlink(missing_ok=True)
        raise
    # The export is whole and in its place; some file systems cannot sync a folder.
    with suppress(OSError):
        _sync(place.parent)


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _sync(path: Path) -> None:
    """Wait until the disk holds `path`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
