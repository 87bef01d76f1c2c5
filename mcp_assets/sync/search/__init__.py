"""Search: finds entities by their words, in PostgreSQL, and by their meaning, in Qdrant.

Belongs here: ranking, the merge of the two rankings, conditions on metadata, the passage that a result shows. Does not:
how words are cut (`mcp_assets.entities.words`), how they are kept (`sync.index.search_words`).

Writes nothing, and takes no lock.
"""
