"""Change feed: tells what changed in the index and why, in the order of commits, at least once.

An entry is written in the transaction of the change that it tells of. It bears the id of that transaction. A reader
takes entries in the order of (transaction, sequence), and only those of transactions that no running one precedes: so
the entry of a slow transaction comes later and is never skipped.

Belongs here: entries, positions, how they are written, read, published and deleted. Does not: why an edge changed,
which is decided in `sync.link`.

Writes the tables `changes` and `change_feed`.
"""
