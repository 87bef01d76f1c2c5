"""The stores: thin, typed access to PostgreSQL, Qdrant and NATS. No policy: what to write is decided in `sync`."""
