"""Look: pictures of the pages of the Dagster UI, for a person to look at. `make look` takes them; no test does."""
