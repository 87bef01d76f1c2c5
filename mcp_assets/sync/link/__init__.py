"""Link: entities that changed get their edges: references, hierarchy, sequence, topics and semantic neighbours.

Belongs here: the linker, what it last saw of each entity, lists of neighbours and how they are kept up to date. Does
not: the rules that decide an edge (`graph`), the table `relationships` itself (`stores.relationships`).

Writes: `linked`, `spares`, `reference_uses`, `tag_weights`, `relink_marks`, and edges in `relationships`.
Locks: one advisory lock of a session for the linker that works; one of a transaction for each change of edges.
"""
