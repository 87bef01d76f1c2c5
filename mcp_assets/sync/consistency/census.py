"""Census: compares source table, ledger, Qdrant, search words and edges of one partition, as the stores have them now.

A first comparison reads hashes. Entities that look wrong in it are *suspects*: they are read again and compared closely
(`sync.consistency.recheck`), because they may only be about to change, and what is wrong then is drift. Texts are
prepared again for a sample of the entities, in a deep census for all.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from mcp_assets.entities.refs import slot_range
from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant_collections import Collection
from mcp_assets.sync.collections.lookup import looked_up_once
from mcp_assets.sync.collections.model_collections import physical_name
from mcp_assets.sync.collections.serving import serving_collection
from mcp_assets.sync.consistency.drift import Drift, DriftKind
from mcp_assets.sync.consistency.edge_census import EdgeCensus, RulesInService
from mcp_assets.sync.consistency.removed_types import drift_of_removed_types
from mcp_assets.sync.consistency.stored_censuses import Census, DriftLog, running_census
from mcp_assets.sync.consistency.vector_census import VectorCensus
from mcp_assets.sync.consistency.word_census import drift_of_words
from mcp_assets.sync.link.locks import require_usable_edges


@dataclass(frozen=True, slots=True)
class Shared:
    """What several censuses, one after the other, share. After an error it is not used for another census."""

    session: Connection
    rules: RulesInService


@contextmanager
def several_censuses(platform: Platform) -> Iterator[Shared]:
    """One connection, one look at the collections in service, and one set of rules for all censuses of the block.

    To make them costs as much as the comparison of a small partition.
    """
    with looked_up_once(platform), platform.postgres.session() as session:
        yield Shared(session, RulesInService(platform))


def take_census(
    platform: Platform,
    entity_type: str,
    shard: int,
    *,
    deep: bool = False,
    collection: Collection | None = None,
    shared: Shared | None = None,
) -> Census:
    """Compare what the four stores hold of a partition, and write the drift to the table `drift`.

    `deep`: every text is prepared again, every payload compared whole, every edge recomputed; otherwise a sample is.
    `collection`: a physical one instead of that behind the alias; edges are left out then. `shared`: from
    `several_censuses`; a census alone makes it for itself.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch: this census has no result, and the last one still counts.
    """
    began = time.monotonic()
    with several_censuses(platform) if shared is None else nullcontext(shared) as work:
        found, profile = serving_collection(platform, entity_type)
        if collection is not None:
            found, profile = collection, platform.embedder.profile
            if platform.qdrant.made_for(collection.alias, collection.name).dimension != profile.dimension:
                raise CollectionMismatch(
                    f"the collection {collection.name} does not hold vectors of {profile.dimension} dimensions"
                )
        alias = platform.settings.entity_types[entity_type].collection_name
        name = found.name if found is not None else physical_name(alias, profile)
        census = Census(entity_type, shard, name, deep)
        slots = slot_range(shard, platform.settings.shards)
        with running_census(platform, census, slots, work.session, in_use=collection is None) as log:
            VectorCensus(platform, census, slots, work.session, log, profile, exists=found is not None).take()
            if collection is None:
                for drift in drift_of_words(platform, work.session, entity_type, slots, deep=deep, seed=census.id):
                    log.add(drift)
                _take_edges(platform, census, slots, work.rules, log)
    census.seconds = time.monotonic() - began
    return census


def _take_edges(
    platform: Platform, census: Census, slots: tuple[int, int], rules: RulesInService, log: DriftLog
) -> None:
    # Drift that belongs to no partition is reported by the first one.
    is_first = census.entity_type == next(iter(platform.settings.entity_types)) and slots[0] == 0
    if is_first:
        for drift in drift_of_removed_types(platform):
            log.add(drift)
    try:
        require_usable_edges(platform)
    except StoreRefused as refusal:
        # An error here would lose what was found in ledger and points.
        if is_first:
            log.add(Drift(DriftKind.UNUSABLE_TABLE, None, str(refusal), platform.relationships.name))
        return
    edges = EdgeCensus(platform, census.entity_type, slots, rules, deep=census.deep, seed=census.id)
    for drift in edges.take():
        log.add(drift)
    census.edges = edges.count()
    census.recall = edges.recall()
