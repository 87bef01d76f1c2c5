# make demo, make test and make check work on a machine that has Python 3.11 and make, and nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
LOOK ?= look
# The tests start the command hundreds of times, and without compiled files each start takes two thirds longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-celery check audit sbom bench look docs reference storm format constraints wheel clean machine kills

PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-deps
PACKAGES = $(shell grep -c '^[a-z]' $(1))

# What the platform needs, and no development tools: `make demo` is for people who look at it for the first time.
$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; found = sys.version_info[:2]; (3, 11) <= found <= (3, 12) or sys.exit(\
		"mcp_assets needs Python 3.11 or 3.12, and this is %d.%d: name another one, as in make demo PYTHON=python3.11" % found)'
	@echo "Installing $(call PACKAGES,constraints.txt) packages into $(VENV): about 240 MB to download, 900 MB on disk."
	@echo "That takes one to three minutes, and longer on a slow line. The next call starts at once."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --requirement constraints.txt
	$(PIP) --quiet --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed constraints-dev.txt
	@echo "Installing $(call PACKAGES,constraints-dev.txt) packages of development tools into $(VENV)."
	$(PIP) --quiet --require-hashes --requirement constraints-dev.txt
	@touch $@

demo: $(VENV)/.installed  ## the whole platform on a laptop; ARGS=--once ends after the searches
	$(BIN)/mcp-assets demo $(ARGS)

test: $(VENV)/.installed-dev  ## every test; ARGS are pytest's
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

test-celery: $(VENV)/.installed-dev  ## two Celery workers, one of them killed; needs redis-server on the path
	$(BIN)/python -m pytest -rs $(ARGS) mcp_assets_tests/celery

machine: $(VENV)/.installed-dev  ## 10,000 examples of the state machine of linking, which takes hours; failures stay in .hypothesis/machine
	MCP_ASSETS_TESTS_MACHINE_EXAMPLES=10000 $(BIN)/python -m pytest --hypothesis-seed=random \
		mcp_assets_tests/integration/test_incremental_equals_rebuild.py $(ARGS)

kills: $(VENV)/.installed-dev  ## kill each work at each of its moments, not at one in so many; takes an hour or two
	MCP_ASSETS_TESTS_MOMENTS=100000 $(BIN)/python -m pytest --timeout 0 \
		mcp_assets_tests/integration/test_killed_anywhere.py mcp_assets_tests/integration/test_intake_killed.py $(ARGS)

check: $(VENV)/.installed-dev  ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev  ## every benchmark in its short form, a JSON line each; takes some 20 minutes
	$(BIN)/python benchmarks/cold_fill.py --rounds 1 --entities 2000
	$(BIN)/python benchmarks/parts.py --rounds 1 --entities 2000
	$(BIN)/python benchmarks/remote_fill.py --rounds 1 --entities 2000
	$(BIN)/python benchmarks/burst.py --events 1000
	$(BIN)/python benchmarks/events.py --rounds 1 --events 300
	$(BIN)/python benchmarks/freshness.py --idle-events 5 --rest 5 10 --seconds 10
	$(BIN)/python benchmarks/scale.py --entities 10000
	$(BIN)/python benchmarks/extremes.py --entities 5000 --newly-tagged 200
	$(BIN)/python benchmarks/linking.py --limit 2000 --rounds 1
	$(BIN)/python benchmarks/blocked_lists.py 2000
	$(BIN)/python benchmarks/graph_quality.py
	$(BIN)/python benchmarks/verdict_quality.py --limit 2000
	$(BIN)/python benchmarks/duplicate_quality.py --of-each 20
	$(BIN)/python benchmarks/search_quality.py --of-each 40
	$(BIN)/python benchmarks/search_cost.py --rounds 1 --entities 2000
	$(BIN)/python benchmarks/feed_cost.py --rounds 1 --entities 1000
	$(BIN)/python benchmarks/plan.py --entities 10000
	$(BIN)/python benchmarks/census.py --entities 10000
	$(BIN)/python benchmarks/resync.py --rows 100000
	$(BIN)/python benchmarks/start.py --rounds 1
	$(BIN)/python benchmarks/side_by_side.py --sizes 300

bench-%: $(VENV)/.installed-dev  ## one benchmark at length, such as make bench-linking; ARGS are its own
	$(BIN)/python benchmarks/$*.py $(ARGS)

docs: $(VENV)/.installed-dev  ## the documentation as a site, in site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build

reference: $(VENV)/.installed-dev  ## write the reference pages that are made from the code, and .env.example
	$(BIN)/python -m mcp_assets_tests.reference

look: $(VENV)/.installed-dev  ## a picture of each page of the Dagster UI, in look/; needs Chromium. LOOK is another folder
	$(BIN)/python -m mcp_assets_tests.look $(LOOK) $(ARGS)

storm: $(VENV)/.installed-dev  ## 10,000 events under 216 kill -9, then 24 outages; takes an hour and a half
	$(BIN)/python benchmarks/storm.py --events 10000 --kills 216 --recoveries 11 --cells 24 $(ARGS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(VENV)/.installed-dev  ## pin every dependency anew, by version and hash: constraints.txt, constraints-dev.txt
	$(BIN)/python -m mcp_assets_tests.constraints

audit: $(VENV)/.installed-dev  ## known vulnerabilities of what is pinned; asks a service on the network, and says when it could not
	$(BIN)/python -m mcp_assets_tests.audit $(ARGS)

SBOM ?= dist/mcp_assets.cdx.json
sbom: $(VENV)/.installed-dev  ## the bill of materials of what is installed, in CycloneDX's form. SBOM is another file
	@mkdir -p $(dir $(SBOM))
	$(BIN)/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml --output-reproducible --output-file $(SBOM)

wheel: $(VENV)/.installed-dev  ## the package as a wheel, in dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean:  ## the virtual environment and the embedded stack's state
	-$(BIN)/mcp-assets down
	rm -rf $(VENV) .mcp
