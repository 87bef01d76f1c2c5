"""Index: an entity's source row becomes its ledger row, and the ledger row becomes points in Qdrant.

Belongs here: the ledger, the indexer and its steps, comparison of all source rows with the ledger (`full_sync`,
`sweep`), the recheck of events that came before their commit (`event_rechecks`), the guard against mass deletion,
vectors that are paid and not yet written, and records of outages. Does not: which collection is written
(`collections`), edges (`link`).

Writes: `entities`, `embedded`, `rechecks`, `sweeps`, `sweep_findings`, `unwritten_vectors`, `embedding_rates`,
`search_words`, `provider_outages`, `synced_partitions`, `deletion_judgements`, `dead_letters`; deletes rows of
`wanted_full_syncs`;
marks entities in `relink_marks`. Locks: rows of `entities`, in the order of their ids; one advisory lock a type for
the sweep.
"""
