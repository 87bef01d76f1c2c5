"""Whether Dagster's storage is known to be there, so that a process need not look for its tables.

It stands apart from `postgres_storage`, because a run's process knows it whatever storage the instance has.
"""

_known = [False]


def storage_is_made() -> None:
    """From now on: a run that this process executes stands in the storage, so that its tables are there."""
    _known[0] = True


def is_storage_made() -> bool:
    return _known[0]
