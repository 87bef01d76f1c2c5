"""Requests: what messages and commands ask for about one or many entities, from the request to its answer.

Belongs here: requests for a sync, a validation or a resolution of conflicts (`sync_requests`), requests for a full sync
and the backfill that does it, the sync of named entities (`incremental`), dead letters and their replay. Does not:
reading the messages (`inbox`), the work itself (`index`, `link`, `consistency`).

Writes: `full_sync_requests`, `full_syncs`, `full_sync_progress`, `dead_letters`, `inbox`.
Locks: one advisory lock of a transaction while requests for full syncs are joined or begun.
"""
