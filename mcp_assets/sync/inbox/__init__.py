"""Inbox: messages are read from NATS, kept, and applied once each; answers to them are sent.

Belongs here: reading a stream (`intake`), applying what waits (`drain`), deciding which entity types need a run
(`drain_requests`), answers and their outbox. Does not: what a message means (`events`), how an entity is indexed
(`index`), requests about many entities (`requests`).

Writes: `intake_cursors`, `inbox`, `drains`, `outbox`, `warnings`, `dead_letters`, `wanted_full_syncs`.
Locks: one advisory lock a type, held by the session of the drain that applies that type's messages.
"""
