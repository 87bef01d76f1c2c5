"""Collections: which Qdrant collection serves searches, and which are written.

Belongs here: the collections of a model, their aliases, the journal of a change of model and the move that ends it, the
adoption of a collection that another program made, payload keys of older versions. Does not: what is in a point
(`index`), requests to Qdrant (`stores.qdrant`).

Writes: `collection_changes`, `adopted_collections`; forgets rows of `embedded`; marks entities in `relink_marks`; asks
in `wanted_full_syncs`. Locks: an advisory lock of all collections, shared by writers of points and exclusive for a
change of the aliases; one for the end of a change; one for each collection that is made.
"""
