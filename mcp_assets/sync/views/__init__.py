"""Views: what people and programs read: search, the graph and its exports, what is pending, the
doctor's findings, the plan of a full sync, rows before they are embedded.

Belongs here: code that reads the stores to show what they hold. Does not: anything that changes a store.

Writes nothing, and takes no lock.
"""
