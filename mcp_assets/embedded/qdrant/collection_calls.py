"""Answers to requests about collections and aliases."""

from typing import Any

from qdrant_client import models

from mcp_assets.embedded.qdrant import convert_schemas
from mcp_assets.embedded.qdrant.calls import Call


def list_collections(call: Call) -> dict[str, Any]:
    return {"collections": [{"name": name} for name in call.storage.names()]}


def create_collection(call: Call) -> bool:
    call.storage.create(call.path["collection"], call.parse(models.CreateCollection))
    return True


def update_collection(call: Call) -> bool:
    call.storage.update(call.path["collection"], call.parse(models.UpdateCollection))
    return True


def delete_collection(call: Call) -> bool:
    return call.storage.delete(call.path["collection"])


def collection_exists(call: Call) -> dict[str, bool]:
    return {"exists": call.storage.exists(call.path["collection"])}


def collection_info(call: Call) -> dict[str, Any]:
    collection = call.collection()
    info = collection.info()
    return {
        "status": "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": info.indexed_vectors_count,
        "points_count": info.points_count,
        "segments_count": info.segments_count,
        "config": collection.config.model_dump(mode="json", exclude_none=True),
        "payload_schema": {key: convert_schemas.index_info(index) for key, index in info.payload_schema.items()},
    }


def list_aliases(call: Call) -> dict[str, Any]:
    return _aliases(call.storage.aliases())


def collection_aliases(call: Call) -> dict[str, Any]:
    name = call.collection().name
    return _aliases({alias: target for alias, target in call.storage.aliases().items() if target == name})


def _aliases(targets: dict[str, str]) -> dict[str, Any]:
    return {"aliases": [{"alias_name": alias, "collection_name": name} for alias, name in targets.items()]}


def change_aliases(call: Call) -> bool:
    call.storage.change_aliases(call.parse(models.ChangeAliasesOperation))
    return True
