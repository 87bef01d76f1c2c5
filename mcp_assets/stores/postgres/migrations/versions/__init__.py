"""One module a revision, applied in the order of their `down_revision`."""
