"""The zero-install stack: PostgreSQL, NATS and the Qdrant engine as child processes of one supervisor.

`stack` is what the rest of the project calls. `supervisor` is the detached process that starts, watches and ends the
servers; `servers/` says how each of them is run; `state` is the state directory that both sides share. `qdrant/` is
the loopback server around the Qdrant engine. Nothing here knows what the servers are used for, and nothing here is
needed in production, where `DATABASE_URL`, `NATS_URL` and `QDRANT_URL` name real services.

All files are in the state directory, with two exceptions, both of PostgreSQL: a link in /tmp, while the server runs,
when the state directory's path cannot be a socket's; and, for root only, a copy of the server's programs in /var/cache
when the unprivileged user that runs them cannot reach the installed ones.
"""
