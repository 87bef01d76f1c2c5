# make demo, make test and make check work on a machine that has Python 3.11 and make, and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test check bench docs reference storm format constraints clean machine kills

$(VENV)/.installed: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(VENV)/.installed  ## the whole platform on a laptop; ARGS=--once ends after the searches
	$(BIN)/mcp-assets demo $(ARGS)

test: $(VENV)/.installed  ## every test; ARGS are pytest's
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

machine: $(VENV)/.installed  ## 10,000 examples of the state machine of linking, which takes hours; failures stay in .hypothesis/machine
	MCP_ASSETS_TESTS_MACHINE_EXAMPLES=10000 $(BIN)/python -m pytest --hypothesis-seed=random \
		mcp_assets_tests/integration/test_incremental_equals_rebuild.py $(ARGS)

kills: $(VENV)/.installed  ## kill each work at each of its moments, not at one in so many; takes an hour or two
	MCP_ASSETS_TESTS_MOMENTS=100000 $(BIN)/python -m pytest --timeout 0 \
		mcp_assets_tests/integration/test_killed_anywhere.py mcp_assets_tests/integration/test_intake_killed.py $(ARGS)

check: $(VENV)/.installed  ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed  ## every benchmark, a JSON line each; takes most of an hour
	$(BIN)/python benchmarks/cold_fill.py
	$(BIN)/python benchmarks/burst.py
	$(BIN)/python benchmarks/freshness.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/linking.py
	$(BIN)/python benchmarks/graph_quality.py
	$(BIN)/python benchmarks/census.py
	$(BIN)/python benchmarks/resync.py

docs: $(VENV)/.installed  ## the documentation as a site, in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

reference: $(VENV)/.installed  ## write the reference pages that are made from the code, and .env.example
	$(BIN)/python -m mcp_assets_tests.reference

storm: $(VENV)/.installed  ## 10,000 events under 216 kill -9, then 24 outages; takes an hour and a half
	$(BIN)/python benchmarks/storm.py --events 10000 --kills 216 --recoveries 11 --cells 24 $(ARGS)

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints:  ## pin every dependency anew, by version and hash
	$(BIN)/pip-compile --quiet --allow-unsafe --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --no-annotate --no-header --all-extras --all-build-deps --output-file constraints.txt pyproject.toml

clean:  ## the virtual environment and the embedded stack's state
	-$(BIN)/mcp-assets down
	rm -rf $(VENV) .mcp
