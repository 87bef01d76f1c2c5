"""Entities, without I/O: their names, types, texts, hashes, chunks, and the ids and payloads of their points."""
