"""Link: entities that changed get their edges: references, hierarchy, sequence, topics and semantic neighbours.

Belongs here: the linker, the state in which it last linked each entity, lists of neighbours and how they are kept up to
date, verdicts about edges. Does not: the rules that decide an edge (`graph`), the table `relationships` itself
(`stores.relationships`).

A change of an entity writes a *mark* (`marks`). The linker (`linker`) removes marks and writes edges: it links changes
(`changes`) and lists (`semantic_neighbours`, `topical_neighbours`, `stored_lists`), and asks Qdrant before their turn
(`prefetch`). `graph.ranking` defines list, reserve and cut-off. A team gives verdicts (`judging`), and the linker reads
them (`verdicts`).

Writes: `linked`, `reserves`, `reference_uses`, `tag_weights`, `relink_marks`, `edge_verdicts`, and edges in
`relationships`.
Locks: one advisory lock of a session for the linker that works; one of a transaction for each change of edges.
"""
