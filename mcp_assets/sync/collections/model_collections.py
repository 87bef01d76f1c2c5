"""Collections of a model: the name of the physical collection, and whether the one that is there fits the model."""

from mcp_assets.embedding.profiles import ModelProfile
from mcp_assets.stores.errors import CollectionMismatch
from mcp_assets.stores.qdrant import Qdrant
from mcp_assets.stores.qdrant_collections import Collection, MadeFor


def physical_name(alias: str, profile: ModelProfile) -> str:
    """The name of the collection that is made for `profile` behind `alias`."""
    return f"{alias}__{profile.slug}_{profile.dimension}"


def find_collection(qdrant: Qdrant, alias: str, profile: ModelProfile) -> Collection | None:
    """The collection behind `alias`, if it is there and was made for this model; None if it is not there.

    Raises:
        CollectionMismatch: it was made for another model, dimension or distance.
    """
    target = qdrant.alias_target(alias)
    if target is None:
        if not qdrant.exists(alias):
            return None
        # The name may be an alias that another process has made meanwhile.
        target = qdrant.alias_target(alias) or alias
    _check_made_for(qdrant, alias, target, profile)
    return Collection(alias, target)


def ensure_collection(qdrant: Qdrant, alias: str, profile: ModelProfile) -> Collection:
    """The collection behind `alias`; if there is none, it is made with its payload indexes, and the alias last.

    A collection that bears the plain name is taken as it is, if it was made for this model.

    Raises:
        CollectionMismatch: it was made for another model, dimension or distance.
        StoreUnavailable: Qdrant does not answer.
    """
    found = find_collection(qdrant, alias, profile)
    if found is not None:
        return found
    name = physical_name(alias, profile)
    qdrant.create_collection(name, dimension=profile.dimension, distance=profile.distance)
    qdrant.create_alias(alias, name)
    _check_made_for(qdrant, alias, name, profile)
    return Collection(alias, name)


def _check_made_for(qdrant: Qdrant, alias: str, target: str, profile: ModelProfile) -> None:
    made = qdrant.made_for(alias, target)
    model = None if target == physical_name(alias, profile) else qdrant.model_in(target)
    if made.dimension != profile.dimension or (model or profile.name) != profile.name:
        raise CollectionMismatch(
            f"the collection {target} (alias {alias}) was made for {model or 'another model'} with "
            f"{made.dimension} dimensions, the settings ask for {profile.name} with {profile.dimension}; nothing was "
            f"written to it. Set EMBEDDING_MODEL (and EMBEDDING_PROVIDER) back; or, if no other program uses the "
            f"collection {target}, delete it by hand and run a full sync, which embeds everything again"
        )
    check_distance(made, profile)


def check_distance(made: MadeFor, profile: ModelProfile) -> None:
    """Raise CollectionMismatch if the collection measures another distance than its model needs."""
    if made.distance != profile.distance:
        raise CollectionMismatch(
            f"the collection {made.name} measures {made.distance}, the model {profile.name} needs {profile.distance}; "
            "nothing was written to it. If no other program uses it, delete it by hand and run a full sync"
        )
