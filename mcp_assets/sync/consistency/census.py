"""Census: compares source table, ledger, Qdrant, search words and edges of partitions, as the stores have them now.

One pass takes the censuses of contiguous partitions of a type: a statement, a scroll or a lock then serves all of them.
A first comparison reads hashes. Entities that look wrong in it are *suspects*: they are read again and compared closely
(`sync.consistency.recheck`), because they may only be about to change, and what is wrong then is drift. Texts are
prepared again for a sample of the entities, in a deep census for all.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from mcp_assets.platform import Platform
from mcp_assets.stores.errors import CollectionMismatch, StoreRefused
from mcp_assets.stores.postgres import Connection
from mcp_assets.stores.qdrant_collections import Collection
from mcp_assets.sync.collections.lookup import looked_up_once
from mcp_assets.sync.collections.model_collections import physical_name
from mcp_assets.sync.collections.serving import serving_collection
from mcp_assets.sync.consistency.drift import Drift, DriftKind
from mcp_assets.sync.consistency.edge_census import EdgeCensus, RulesInService
from mcp_assets.sync.consistency.progress import Partitions
from mcp_assets.sync.consistency.removed_types import drift_of_removed_types
from mcp_assets.sync.consistency.stored_censuses import Census, CensusPass, DriftLog, running_pass
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
    """As `take_censuses`, of one partition."""
    partitions = Partitions(entity_type, range(shard, shard + 1))
    return take_censuses(platform, partitions, deep=deep, collection=collection, shared=shared)[0]


def take_censuses(
    platform: Platform,
    partitions: Partitions,
    *,
    deep: bool = False,
    collection: Collection | None = None,
    shared: Shared | None = None,
) -> list[Census]:
    """Compare what the four stores hold of some partitions, and write the drift to the table `drift`: a census of each.

    `deep`: every text is prepared again, every payload compared whole, every edge recomputed; otherwise a sample is.
    `collection`: a physical one instead of that behind the alias; edges are left out then. `shared`: from
    `several_censuses`; a pass alone makes it for itself.

    Raises:
        StoreUnavailable, StoreRefused, CollectionMismatch: none of these censuses has a result, and the last one of
            each partition still counts.
    """
    began = time.monotonic()
    entity_type, shards = partitions
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
        taken = CensusPass(entity_type, shards, name, of=platform.settings.shards, deep=deep)
        with running_pass(platform, taken, work.session, in_use=collection is None) as log:
            VectorCensus(platform, taken, work.session, log, profile, exists=found is not None).take()
            if collection is None:
                for drift in drift_of_words(
                    platform, work.session, entity_type, taken.slots, deep=deep, seed=taken.seed
                ):
                    log.add(drift)
                _take_edges(platform, taken, work.rules, log)
    for census in taken.censuses:
        census.seconds = (time.monotonic() - began) / len(taken.censuses)
    return taken.censuses


def _take_edges(platform: Platform, taken: CensusPass, rules: RulesInService, log: DriftLog) -> None:
    # Drift that belongs to no partition is reported by the first one.
    has_first = taken.entity_type == next(iter(platform.settings.entity_types)) and taken.slots[0] == 0
    if has_first:
        for drift in drift_of_removed_types(platform):
            log.add(drift)
    try:
        require_usable_edges(platform)
    except StoreRefused as refusal:
        # An error here would lose what was found in ledger and points.
        if has_first:
            log.add(Drift(DriftKind.UNUSABLE_TABLE, None, str(refusal), platform.relationships.name))
        return
    edges = EdgeCensus(platform, taken, rules)
    for drift in edges.take():
        log.add(drift)
    edges.count()
    edges.measure_recall()
