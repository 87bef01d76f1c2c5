"""What keeps the stores right: intake, ledger, indexer, drain, full sync, search. Read, diff, write; no Dagster."""
