"""Collections: which Qdrant collection serves searches, and which are written.

Belongs here: the collections of a model, their aliases, the journal of a change of model, its gate and the move that
ends it, the adoption of a collection that another program made, payload keys of older versions. Does not: what is in a
point, how models are measured for the gate (`index`), requests to Qdrant (`stores.qdrant`).

Writes: `collection_changes`, `model_gates`, `adopted_collections`, `wanted_full_syncs`; deletes rows of `embedded`;
marks entities in `entities` (dirty) and `relink_marks`. Locks: one advisory lock for all collections, shared by the
writers of points and exclusive for a change of the journal or the aliases; one for the end of a change of model; one
for each collection that is being made.
"""
