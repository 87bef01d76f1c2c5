"""The storage directory: its lock, the catalogue of collections and aliases, and the open collections.

    DIR/.lock             held by the one process that has the directory open
    DIR/catalogue.json    collections (name, config, directory) and aliases; the truth
    DIR/collections/<id>  one shard of the engine each

Every change of collections and aliases is one atomic replacement of the catalogue: a shard directory that the
catalogue does not name is the rest of a creation or deletion that was cut short, and is removed at start.
"""

import fcntl
import os
import shutil
import threading
import uuid
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError
from qdrant_client import models

from mcp_assets.embedded.qdrant import convert_schemas
from mcp_assets.embedded.qdrant.collection import StoredCollection
from mcp_assets.embedded.qdrant.errors import (
    already_exists,
    bad_request,
    no_collection,
    not_found,
    unsupported,
    wrong_input,
)
from mcp_assets.embedded.qdrant.strict import strict_mode

_MAX_NAME_LENGTH = 255
_FORBIDDEN_IN_NAMES = '<>:"/\\|?*\0\x1f'

_HNSW_DEFAULTS: dict[str, Any] = {
    "m": 16,
    "ef_construct": 100,
    "full_scan_threshold": 10_000,
    "max_indexing_threads": 0,
}
_OPTIMIZERS_DEFAULTS: dict[str, Any] = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "flush_interval_sec": 5,
}


class StorageInUseError(Exception):
    """Another process has the storage directory open."""


class StorageDamagedError(Exception):
    """The storage directory cannot be read as one."""


class _Entry(BaseModel):
    directory: str
    config: models.CollectionConfig


class _Catalogue(BaseModel):
    collections: dict[str, _Entry] = {}
    aliases: dict[str, str] = {}


class Storage:
    """The open collections of one directory, by name and by alias. Safe to use from several threads."""

    def __init__(self, directory: Path, lock: int, catalogue: _Catalogue, *, strict: bool) -> None:
        self._directory = directory
        self._lock = lock
        self._strict = strict
        self._catalogue = catalogue
        self._open: dict[str, StoredCollection] = {}
        self._changing = threading.RLock()

    @classmethod
    def open(cls, directory: Path, *, strict: bool = False) -> Self:
        """Lock `directory` (made if absent), clear the rest of what was cut short, open every collection.

        `strict`: new collections are in strict mode unless they ask for something else.

        Raises StorageInUseError, or StorageDamagedError.
        """
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(lock, 32, 0).decode().strip() or "unknown"
                raise StorageInUseError(
                    f"storage {directory} is in use by process {holder}: stop that server, or name another directory"
                ) from None
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            storage = cls(directory, lock, _read_catalogue(directory / "catalogue.json"), strict=strict)
            storage._open_collections()
        except BaseException:
            os.close(lock)
            raise
        return storage

    def _open_collections(self) -> None:
        shards = self._directory / "collections"
        shards.mkdir(exist_ok=True)
        named = {entry.directory for entry in self._catalogue.collections.values()}
        for leftover in shards.iterdir():
            if leftover.name not in named:
                shutil.rmtree(leftover)
        for name, entry in self._catalogue.collections.items():
            path = shards / entry.directory
            if not path.is_dir():
                raise StorageDamagedError(
                    f"collection {name}: its directory {path} is missing. Restore it from a backup, or move "
                    f"{self._directory} away to start empty"
                )
            self._open[name] = StoredCollection.open(name, entry.config, path)

    def close(self) -> None:
        """Flush and close every collection, and release the directory."""
        with self._changing:
            try:
                for collection in self._open.values():
                    collection.close()
            finally:
                self._open.clear()
                os.close(self._lock)

    def collections(self) -> list[StoredCollection]:
        with self._changing:
            return list(self._open.values())

    def names(self) -> list[str]:
        with self._changing:
            return sorted(self._open)

    def exists(self, name: str) -> bool:
        with self._changing:
            return self._catalogue.aliases.get(name, name) in self._open

    def resolve(self, name: str) -> StoredCollection:
        """The collection of that name or alias; a RequestError (404) if there is none."""
        with self._changing:
            collection = self._open.get(self._catalogue.aliases.get(name, name))
        if collection is None:
            raise no_collection(name)
        return collection

    def aliases(self) -> dict[str, str]:
        """Every alias with the collection it stands for."""
        with self._changing:
            return dict(self._catalogue.aliases)

    def create(self, name: str, request: models.CreateCollection) -> None:
        _check_name(name)
        config = _config(request, strict=self._strict)
        with self._changing:
            if name in self._open:
                raise already_exists(name)
            if name in self._catalogue.aliases:
                raise wrong_input(f"Can't create collection with name {name}. Alias with the same name already exists")
            directory = uuid.uuid4().hex
            path = self._directory / "collections" / directory
            try:
                collection = StoredCollection.create(name, config, path)
                catalogue = self._catalogue.model_copy(deep=True)
                catalogue.collections[name] = _Entry(directory=directory, config=config)
                self._replace_catalogue(catalogue)
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
            self._open[name] = collection

    def delete(self, name: str) -> bool:
        """Delete the collection and its aliases; False if no collection has that name (an alias is no name)."""
        with self._changing:
            if name not in self._open:
                return False
            catalogue = self._catalogue.model_copy(deep=True)
            entry = catalogue.collections.pop(name)
            catalogue.aliases = {alias: target for alias, target in catalogue.aliases.items() if target != name}
            self._replace_catalogue(catalogue)
            collection = self._open.pop(name)
        collection.close()
        shutil.rmtree(self._directory / "collections" / entry.directory)
        return True

    def update(self, name: str, request: models.UpdateCollection) -> None:
        """Record the new settings; `upkeep` alone decides on flushing and indexing."""
        for unsupported_setting in ("quantization_config", "sparse_vectors"):
            if getattr(request, unsupported_setting):
                raise unsupported(f"{unsupported_setting} is")
        with self._changing:
            collection = self.resolve(name)
            config = collection.config.model_copy(deep=True)
            for section, diff in (
                ("hnsw_config", request.hnsw_config),
                ("optimizer_config", request.optimizers_config),
                ("params", request.params),
            ):
                if diff is not None:
                    current = getattr(config, section)
                    merged = current.model_dump(mode="json") | diff.model_dump(mode="json", exclude_none=True)
                    setattr(config, section, type(current).model_validate(merged))
            asked = strict_mode(request.strict_mode_config, by_default=False)
            if asked is not None:
                known = config.strict_mode_config
                merged = (known.model_dump(exclude_none=True) if known else {}) | asked.model_dump(exclude_none=True)
                config.strict_mode_config = models.StrictModeConfigOutput(**merged)
            if request.metadata is not None:
                config.metadata = {**(config.metadata or {}), **request.metadata}
            catalogue = self._catalogue.model_copy(deep=True)
            catalogue.collections[collection.name].config = config
            self._replace_catalogue(catalogue)
            collection.config = config

    def change_aliases(self, request: models.ChangeAliasesOperation) -> None:
        """All of the actions, in order, or none of them; durable on return."""
        with self._changing:
            catalogue = self._catalogue.model_copy(deep=True)
            aliases = catalogue.aliases
            for action in request.actions:
                match action:
                    case models.CreateAliasOperation(create_alias=create):
                        if create.collection_name not in self._open:
                            raise no_collection(create.collection_name)
                        if create.alias_name in self._open:
                            raise already_exists(create.alias_name)
                        aliases[create.alias_name] = create.collection_name
                    case models.DeleteAliasOperation(delete_alias=delete):
                        aliases.pop(delete.alias_name, None)
                    case models.RenameAliasOperation(rename_alias=rename):
                        if rename.old_alias_name not in aliases:
                            raise not_found(f"Alias {rename.old_alias_name} does not exists!")
                        if rename.new_alias_name in self._open:
                            raise already_exists(rename.new_alias_name)
                        aliases[rename.new_alias_name] = aliases.pop(rename.old_alias_name)
            self._replace_catalogue(catalogue)

    def _replace_catalogue(self, catalogue: _Catalogue) -> None:
        _write_durably(self._directory / "catalogue.json", catalogue.model_dump_json(exclude_none=True).encode())
        self._catalogue = catalogue


def _read_catalogue(path: Path) -> _Catalogue:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _Catalogue()
    try:
        return _Catalogue.model_validate_json(content)
    except ValidationError as error:
        raise StorageDamagedError(
            f"{path} is no catalogue of collections ({error.error_count()} errors). Restore it from a backup, or move "
            f"its directory away to start empty"
        ) from error


def _write_durably(path: Path, content: bytes) -> None:
    """Replace `path` in one step that outlives a crash: new file, fsync, rename, fsync of the directory."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check_name(name: str) -> None:
    if not 1 <= len(name.encode()) <= _MAX_NAME_LENGTH:
        raise bad_request(
            f"a collection name has 1 to {_MAX_NAME_LENGTH} bytes, `{name[:40]}…` has {len(name.encode())}"
        )
    forbidden = next((character for character in name if character in _FORBIDDEN_IN_NAMES), None)
    if forbidden is not None:
        raise bad_request(f"collection name cannot contain {forbidden!r} char")


def _config(request: models.CreateCollection, *, strict: bool) -> models.CollectionConfig:
    """The settings to report: those asked for, over a Qdrant server's defaults."""
    vectors = convert_schemas.vector_params(request)

    def over(defaults: dict[str, Any], asked: BaseModel | None) -> dict[str, Any]:
        return defaults if asked is None else defaults | asked.model_dump(mode="json", exclude_none=True)

    return models.CollectionConfig(
        params=models.CollectionParams(
            vectors=vectors, on_disk_payload=True if request.on_disk_payload is None else request.on_disk_payload
        ),
        hnsw_config=models.HnswConfig.model_validate(over(_HNSW_DEFAULTS, request.hnsw_config)),
        optimizer_config=models.OptimizersConfig.model_validate(over(_OPTIMIZERS_DEFAULTS, request.optimizers_config)),
        wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
        strict_mode_config=strict_mode(request.strict_mode_config, by_default=strict),
        metadata=request.metadata,
    )
