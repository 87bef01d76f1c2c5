"""Views: what people and programs read: search, the graph and its exports, what is pending, the
doctor's findings, the plan of a full sync, rows before they are embedded, the quality of edges and searches.

Belongs here: code that reads the stores to show what they hold. Does not: anything that changes a store.

Writes nothing but the costs of questions that it embeds (`embedding_costs`), and takes no lock.
"""
