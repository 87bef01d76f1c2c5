"""What the platform does with its stores, without Dagster: each folder is a room, with its charter in `__init__.py`.

A room imports only from rooms on lower floors, which `make check` enforces:

    requests               messages and commands about many entities, and their answers
    views                  what people and programs read
    consistency            compare and repair
    search                 find entities by words and by meaning
    inbox                  take messages in, have them applied
    link                   edges
    index                  ledger and vectors
    collections            which Qdrant collection is read and written
    pace, pipeline, resolve_ids, sums  used by several rooms
"""
