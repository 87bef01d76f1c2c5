"""Inbox: reads messages from NATS, keeps them, applies each once, and sends the answers.

Belongs here: reading a stream (`intake`, `stream_cursor`), applying its messages (`drain`, its workers, batches and
lock), deciding which entity types need a run (`drain_requests`), answers and their outbox. Does not: what a message
means (`events`), how an entity is indexed (`index`), requests about many entities (`requests`).

Writes: `intake_cursors`, `inbox`, `drains`, `outbox`, `warnings`, `dead_letters`, `wanted_full_syncs`.
Locks: one advisory lock a type, held by the session of the drain that applies that type's messages.
"""
