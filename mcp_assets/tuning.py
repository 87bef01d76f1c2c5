"""Tuning: the numbers that a test or a benchmark changes, each with its unit and its reason, grouped by room.

No setting leads here: what an operator may change is in `settings`. A number that no caller changes stays a constant of
the module that uses it. A platform has one `Tuning`, and code reads it there: `platform.tuning.inbox.taken_over_s`.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreTuning:
    """Of `stores`: how much one request carries, and how long one waits."""

    postgres_timeout_s: float = 15.0
    """Seconds for a connection to PostgreSQL, a new one or one of the pool; libpq waits for at least two."""

    qdrant_bytes_a_request: int = 16 << 20
    """Bytes of one write to Qdrant, which refuses bodies over 32 MiB; a proxy before it may refuse smaller ones."""

    source_rows_a_fetch: int = 10_000
    """Rows that a cursor over a source table in another database fetches at once: some 1 MB of ids and hashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionTuning:
    """Of `sync.collections`."""

    payloads_a_page: int = 500
    """Payloads whose keys one request reads, and one request writes, renamed: whole metadata, some kilobytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexTuning:
    """Of `sync.index`: search words, the sweep, the rechecks, the budget, and the probe of Qdrant."""

    words_cut_at_once: int = 50_000
    """Characters of a batch up to which its search words are cut in its own transaction, which takes some 10 ms; those
    of a larger batch are left to the linker. Twenty events of usual length stay below it."""

    sweep_rows_a_slice: int = 1_000_000
    """Rows that one statement compares: it takes some 4 s. Smaller slices cost more, because each reads the whole
    table."""

    sweep_least_pause_s: float = 2.0
    """Seconds between two slices of a type: small tables would otherwise be compared many times a second."""

    sweep_locked_s: float = 10.0
    """Seconds after which a process looks again whether the process that sweeps has ended, and the longest rest before
    the sweep looks again."""

    rechecks_after_s: tuple[float, ...] = (2.0, 10.0, 60.0)
    """Seconds after the event, about, at which its entity is rechecked: most commits follow within the first, and a
    transaction that takes a minute is rare; the sweep finds the row of a later one."""

    budget_asked_again_s: float = 10.0
    """Seconds after which a full sync that has spent the budget of the day asks whether there is more."""

    qdrant_answer_valid_s: float = 1.0
    """Seconds for which the probe reuses an answer of Qdrant, or the lack of one, because several sensors ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTuning:
    """Of `sync.link`: when a linker rebuilds all lists, how much it does at once, and what it asks Qdrant for."""

    rebuild_from: int = 500
    """Changed entities from which on all lists may be rebuilt; see `rebuild_share`."""

    rebuild_share: float = 0.08
    """All lists are rebuilt when at least `rebuild_from` entities have changed, and this share of all living ones: the
    search for the reach of a changed entity costs about ten times one for a list. Measured at 20,000 entities: without
    a rebuild, linking takes 1.35 times as long when a tenth has changed, 2.4 times when a third has."""

    changes_at_once: int = 200
    """Changed entities in one transaction: while it is open, it blocks all others that change edges."""

    changes_in_rebuild_at_once: int = 500
    """As `changes_at_once`, of changes that a rebuild covers: each costs less, because no list of others is
    compared."""

    referring_at_once: int = 2_000
    """Entities whose reference edges are resolved in one transaction, so that none takes minutes. A key may have more
    users: the others are marked for the next transaction."""

    lists_at_once: int = 500
    """Marks in a batch, whose lists are written in one transaction. Chosen, not measured: a larger batch costs fewer
    commits and reads, and keeps other transactions that change edges waiting for longer."""

    batches_between_changes: int = 20
    """Batches of lists that are written before changes are looked for again, so that they wait some seconds at most."""

    batches_prefetched: int = 8
    """Batches that are prefetched at a time: some megabytes each. Chosen, not measured: more batches bridge a longer
    batch of changes, and are lost if a change makes them invalid."""

    list_hits: int = 24
    """Hits that a query for a list asks for. The list holds 20. It needs one more, because the last hit may tie with
    points that are left out; a few more make up for hits whose entity is gone."""

    index_wait_s: float = 120.0
    """Seconds for which a linker with many questions waits for Qdrant's index: some 100,000 points are indexed within
    it. A collection that is written to all the time may never be done."""

    exact_for_s: float = 7_200.0
    """Estimated CPU seconds up to which a rebuild finds exact lists in blocks, although Qdrant would answer by its
    index in less: those of some 1,000,000 entities of 256 dimensions, which two cores find in an hour."""

    ask_query_s: float = 2e-4
    """CPU seconds of a question for a list to one collection, beside the comparison of vectors. These are estimates by
    which the linker chooses how to find neighbours (`sync.link.prefetch`). For 8,821 entities of 256 dimensions in
    three collections, asking took 10.4 CPU seconds and blocks 3.9; for 16,000, 28 (by proportion) and 8.7."""

    ask_number_s: float = 3e-10
    """CPU seconds in which Qdrant compares one number of a stored vector with that of a question; a real Qdrant of two
    cores takes 5e-10."""

    block_start_s: float = 0.1
    """Seconds that make blocks not worth their while for a few entities: files are made, and lists wait for them."""

    read_number_s: float = 3e-7
    """CPU seconds in which one number of a stored vector is read from Qdrant, as JSON."""

    block_query_s: float = 3.5e-4
    """CPU seconds of a list that is found in blocks, beside the comparison of vectors."""

    block_number_s: float = 2.4e-11
    """CPU seconds in which one number of a stored vector is compared in blocks with that of another."""

    reach_hits: int = 1_000
    """Hits that a query for the reach of an entity asks for at first; twice as many while that does not go down to the
    threshold."""

    reach_queries_a_request: int = 10
    """Queries for the reach in one request: up to 10,000 hits an answer, some megabytes."""

    entities_kept: int = 100_000
    """Points whose entities are cached, at most: some twenty megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyTuning:
    """Of `sync.consistency`: how much one pass compares, and how much of the recall of similarity edges."""

    entities_a_pass: int = 100_000
    """Living entities whose censuses one pass takes together, or those of one partition if these are more. Each pass
    reads the edges of its type from end to end, so that few are cheap. But if one fails, all that it compared has to be
    compared again, its snapshots keep PostgreSQL from removing dead rows, and progress is said only between two: a
    hundred thousand take one to two minutes."""

    recall_lists: int = 200
    """Lists of an entity type that the censuses of all its partitions compare with exact ones, together: some 4,000
    neighbours, so that a recall of 0.95 is known within 0.01."""

    recall_lists_a_request: int = 10
    """Lists of the sample that one request asks for: a real Qdrant of two cores answers them in a second or two if a
    collection holds a million points of 256 dimensions."""

    recall_s: float = 15.0
    """Seconds after which a census asks for no further list of its sample. Exact searches take all cores of Qdrant, and
    searches of people wait meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxTuning:
    """Of `sync.inbox`: intake, drains, when a run is asked for, warnings, and the outbox."""

    messages_a_read: int = 5_000
    """Messages that one transaction takes in: they are parsed in well under a second, and held in memory together."""

    bytes_a_read: int = 16 << 20
    """Bytes of messages that one transaction takes in: each may have up to a megabyte."""

    intake_wait_s: float = 0.5
    """Seconds for which the reader of a drain waits for messages at a time: so soon it notices that the workers
    leave."""

    taken_over_s: float = 3.0
    """Seconds after which a drain takes over messages of another type that came before the drain was asked for.

    They have a run of their own on the way, which starts within a second or two; after that it is late or lost.
    """

    left_to_drains_s: float = 2.0
    """Seconds for which messages are left to a living drain of another type, which takes them over within this time."""

    starting_s: float = 30.0
    """A run that has not begun to drain this many seconds after it was made or launched counts as lost.

    A run begins within a second, or some 20 s if the process that forks runs has to be started on a busy machine. One
    run too many does no harm, because it finds the lock of its type taken and ends.
    """

    full_sync_again_s: float = 60.0
    """Seconds after which a failed full sync for lost events is asked for again; doubled after each further failure."""

    drain_again_s: float = 15.0
    """Seconds after which a drain is asked for again if it failed twice in a row; doubled after each further failure.

    After one failure it is asked for at once. A drain that fails each time would otherwise fill the list of runs. The
    outages that are known beforehand, of Qdrant and of the embedding provider, cost no run at all.
    """

    warnings_kept: int = 1_000
    """Rows of warnings that are kept, because a publisher may make any number of them. The least recently seen are
    deleted first."""

    results_at_once: int = 20
    """Results that are held in memory and published together; each has up to the server's size of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTuning:
    """Of `sync.requests`."""

    tries: int = 5
    """Tries of a request whose stores do not answer. After the last one the request is answered with the error and
    becomes a dead letter, because its sender may not wait for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewTuning:
    """Of `sync.views`."""

    export_rows_at_once: int = 50_000
    """Rows of an exported file that are in memory at once: some tens of megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefsTuning:
    """Of `defs`: what runs and sensors do in Dagster."""

    events_every_s: float = 10.0
    """Seconds between two reports of a run about its partitions: each event costs Dagster's event log some 8 ms, and a
    person does not read faster than this."""

    marks_left_s: float = 5.0
    """Seconds after which relink marks, while no unfinished run links, count as left by a run that died."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """All of them; the defaults are those of production."""

    stores: StoreTuning = field(default_factory=StoreTuning)
    collections: CollectionTuning = field(default_factory=CollectionTuning)
    index: IndexTuning = field(default_factory=IndexTuning)
    link: LinkTuning = field(default_factory=LinkTuning)
    consistency: ConsistencyTuning = field(default_factory=ConsistencyTuning)
    inbox: InboxTuning = field(default_factory=InboxTuning)
    requests: RequestTuning = field(default_factory=RequestTuning)
    views: ViewTuning = field(default_factory=ViewTuning)
    defs: DefsTuning = field(default_factory=DefsTuning)
