# make demo, make test and make check work on a machine that has Python 3.11 and make, and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test check bench storm format constraints clean

$(VENV)/.installed: constraints.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

demo: $(VENV)/.installed  ## the whole platform on a laptop; ARGS=--once ends after the searches
	$(BIN)/mcp-assets demo $(ARGS)

test: $(VENV)/.installed  ## every test; ARGS are pytest's
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

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
