"""The errors of the stores, as the rest of the platform catches them."""


class StoreUnavailable(Exception):
    """A store cannot be reached or did not answer in time, so that nothing is known of its contents."""

    tried_out = False
    """The retry policy has made all its attempts, so that the same call is not tried again now."""


class Stranger(StoreUnavailable):
    """Another program, or another server than this platform's, answers at a store's address."""


class StoreRefused(Exception):
    """A store answered that it refuses the request; the same request again has the same outcome."""


class CollectionMismatch(Exception):
    """A collection was made for another model or dimension: nothing was written to it."""


class CollectionNotOurs(CollectionMismatch):
    """A collection under a name of ours holds what another program wrote: it is neither written to nor replaced."""


class PointsMissing(StoreRefused):
    """A request names a point, or a collection, that Qdrant does not hold."""


def first_line(error: Exception) -> str:
    """The first line of an error's message, which in errors of PostgreSQL says what happened; or else its class."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
