"""Acceptance tests: the stack, the embedder, Dagster's daemon and code server, each as processes of their own."""
