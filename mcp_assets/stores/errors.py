"""What goes wrong with a store, as the rest of the platform sees it."""


class StoreUnavailable(Exception):
    """A store cannot be reached or did not answer in time: nothing is known of what it holds."""

    tried_out = False
    """The retry policy has had its tries: the same call is not worth another one now."""


class Stranger(StoreUnavailable):
    """What answers on a store's address is another program, or another server, than this platform's."""


class StoreRefused(Exception):
    """A store answered that it will not do this: asking again will not help."""


class CollectionMismatch(Exception):
    """A collection was made for another model or dimension: nothing was written to it."""


class CollectionNotOurs(CollectionMismatch):
    """A collection under a name of ours holds what another program wrote: it is neither written to nor replaced."""


class PointsMissing(StoreRefused):
    """A request names a point, or a collection, that Qdrant does not hold."""
