"""Consistency: what the stores hold is compared with what they should hold, and what differs is repaired.

Belongs here: the census and its report, the kinds of drift, asset checks as values, repair, validation, the resolution
of conflicts, entity types that the settings no longer name, the end of entities that live by events alone. Does not:
how a repair embeds or links (`index`, `link`), how Dagster shows a check (`defs`).

Writes: `censuses`, `drift`; a repair also what `index` and `link` write. Locks: one advisory lock a partition while a
census of it is taken, and the linker's.
"""
