# Everything a developer needs. Only Python 3.11 to 3.13, pip and make have to be there.
PYTHON ?= python3
ROUNDS ?= 20
MINUTES ?= 60
RECORDS ?= 50000
UPGRADE ?= --upgrade
BIN := .venv/bin
LOCKED := --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 -q $(UPGRADE)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help demo test test-system torture soak coverage check check-sql audit sbom bench bench-peers bench-growth bench-scale bench-dashboards \
	columns dictionary messages tree lock clean
.DEFAULT_GOAL := help

help: ## say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: .venv/.runtime ## see the whole pipeline on this machine, in a minute; KEEP=1 stays up to look around until Ctrl-C
	@$(BIN)/referral-sync demo $(if $(KEEP),--keep)

test: .venv/.dev ## run the suite; starts the PostgreSQL and the simulator that it needs
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not long"

test-system: .venv/.dev .venv/.dbt ## what needs dbt and Debian packages (pgbouncer, chromium, buildah, ...), which it installs
	@(test -x /usr/sbin/pgbouncer -a -x /usr/sbin/debootstrap \
		&& command -v chromium && command -v faketime && command -v buildah && command -v systemd-analyze) >/dev/null \
		|| (apt-get update -qq && export DEBIAN_FRONTEND=noninteractive \
			&& apt-get install -y -qq pgbouncer chromium faketime \
			&& apt-get install -y -qq --no-install-recommends buildah debootstrap systemd)
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m long tests/acceptance
	@$(BIN)/python -m pytest -q tests/system

torture: .venv/.dev ## kills, outages and the lying API again and again; ROUNDS=20 takes about a quarter of an hour
	@$(BIN)/python -m pytest -q tests/property tests/acceptance/test_kills.py tests/torture --rounds $(ROUNDS) --timeout 7200

soak: .venv/.dev ## two daemons, a changing source, and random faults of everything around them; MINUTES=60
	@$(BIN)/python -m pytest -q -s tests/torture/test_soak.py --minutes $(MINUTES) --timeout 0

coverage: .venv/.dev ## run the suite and say which lines it reached, in the processes that it starts too; htmlcov/ shows them
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q -n 2 --dist worksteal $(TESTS); ended=$$?; \
		$(BIN)/coverage combine -q && $(BIN)/coverage html -q && $(BIN)/coverage report; exit $$ended

check: .venv/.dev ## lint, format, types, layers, spelling, whitespace
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/codespell
	@! git grep -nIE '[[:space:]]+$$'

check-sql: .venv/.dev ## lint the SQL of the migrations, which takes half a minute
	@$(BIN)/sqlfluff lint -q --disable-progress-bar migrations/sql

audit: .venv/.dev ## look the pinned dependencies up among known vulnerabilities; needs the network
	@$(BIN)/pip-audit --require-hashes --disable-pip -r requirements.lock -r requirements-build.lock

sbom: .venv/.dev ## write sbom.json: what the container image is made of, in CycloneDX
	@$(BIN)/cyclonedx-py requirements --output-reproducible --of JSON -o sbom.json requirements.lock
	@echo "sbom.json lists $$($(BIN)/python -c 'import json; print(len(json.load(open("sbom.json"))["components"]))') components"

bench: .venv/.dev ## a backfill and syncs beside their floors, by default and tuned settings; RECORDS=50000
	@$(BIN)/python -m benchmarks.backfill $(RECORDS)

bench-peers: .venv/.dev .venv/.peers ## the same with dlt and sling beside it, in an environment of their own
	@PEERS_PYTHON=$(CURDIR)/.venv/peers/bin/python $(BIN)/python -m benchmarks.backfill $(RECORDS) --peers

bench-growth: .venv/.dev ## memory and syncs at 20,000 and at 1,000,000 records
	@$(BIN)/python -m benchmarks.growth

bench-scale: .venv/.dev ## 200 accounts on three workers: in peace, killed, paused, cut off, and with a large backfill
	@$(BIN)/python -m benchmarks.scale

bench-dashboards: .venv/.dev ## how long dashboards wait at 200,000 referrals with a million versions
	@$(BIN)/python -m benchmarks.dashboards

columns: .venv/.dev ## write worker/model/columns.py from worker/model/schema.py
	@$(BIN)/python -m tools.columns

dictionary: .venv/.dev ## write docs/data-dictionary.md and dbt/models/sources.yml from the comments in the database
	@$(BIN)/python -m tools.dictionary

messages: .venv/.dev ## write docs/messages.md, the text of each kind of message, and a picture of one (needs chromium)
	@$(BIN)/python -m tools.messages --picture

tree: .venv/.dev ## list what is in each file of worker/
	@$(BIN)/python -m tools.tree

lock: .venv/.dev ## resolve the dependencies anew; UPGRADE= keeps the pins that still fit
	@$(BIN)/pip install -q uv
	@$(BIN)/uv pip compile pyproject.toml $(LOCKED) --extra demo --extra notify -o requirements.lock
	@$(BIN)/uv pip compile $(LOCKED) --group build -c requirements.lock -o requirements-build.lock
	@$(BIN)/uv pip compile pyproject.toml $(LOCKED) --extra demo --extra notify --extra mcp --extra dev --group build \
		-c requirements.lock -c requirements-build.lock -o requirements-dev.lock
	@$(BIN)/uv pip compile tests/system/dbt.in $(LOCKED) --no-strip-extras -o tests/system/dbt.lock

clean: ## remove what was made here
	@rm -rf .venv build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.runtime: requirements.lock requirements-build.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what is pinned in requirements.lock ..."
	@$(BIN)/pip install -q --require-hashes -r requirements.lock -r requirements-build.lock
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@echo "Installing what is pinned in requirements-dev.lock ..."
	@$(BIN)/pip install -q --require-hashes -r requirements-dev.lock
	@touch $@

.venv/.dbt: tests/system/dbt.lock
	@test -x .venv/dbt/bin/python || $(PYTHON) -m venv .venv/dbt
	@.venv/dbt/bin/pip install -q --require-hashes -r tests/system/dbt.lock
	@touch $@

.venv/.peers: benchmarks/peers.txt
	@test -x .venv/peers/bin/python || $(PYTHON) -m venv .venv/peers
	@.venv/peers/bin/pip install -q -r benchmarks/peers.txt
	@touch $@
