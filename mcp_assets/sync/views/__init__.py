"""Views: what people and programs read: search, the graph and its exports, what is pending, the doctor's findings.

Belongs here: whatever reads the stores for somebody who looks. Does not: anything that changes a store.

Writes nothing, and takes no lock.
"""
