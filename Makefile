# Words given on the command line (USER=…, SERVICE=…) reach the scripts as environment variables, never through the shell.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
RUN := .venv/bin/python
# Ends with make, even if make is killed: see scripts/leash.py.
TIED := exec $(RUN) -I -S scripts/leash.py $$PPID $(RUN)

.PHONY: help up down dev seed token messages health dead-letters configure admin provider-secret verify export import test soak check format bench migrate lock env env-npm
.DEFAULT_GOAL := help

help: ## Show this
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: env ## Start MongoDB, Redis and all services, with demo data; Ctrl-C stops them
	@$(TIED) -m scripts.up

down: env ## Stop what `make up` started elsewhere
	@$(RUN) -m scripts.down

dev: env ## Run one service with reload on a running stack: make dev SERVICE=payment
	@$(TIED) -m scripts.dev

token: env ## Sign in on the running stack and print a token: make token USER=alice [PASSWORD=…] [TENANT=demo]
	@$(if $(findstring command,$(origin USER)),,$(error say for whom: make token USER=alice))$(RUN) -m scripts.login

messages: env ## Show what users would have been sent, codes and all: make messages [TO=anna@example.com] [TENANT=demo]
	@$(RUN) -m scripts.messages

health: env ## Show whether every service is ready
	@$(RUN) -m scripts.health

migrate: env ## Bring the running stack's databases to the newest version
	@$(RUN) -m scripts.migrate

dead-letters: env ## Show events that could not be handled; REPLAY=id or SKIP=id decides about one
	@$(RUN) -m scripts.dead_letters

configure: env ## Show a service's configuration, or change it: make configure NAME=auth [TENANT=demo REASON=… < values.json]
	@$(RUN) -m scripts.configure

admin: env ## Make somebody an administrator of a tenant: make admin EMAIL=anna@example.com [TENANT=acme]
	@$(RUN) -m scripts.create_admin

provider-secret: env ## Seal the secret of an identity provider's client: make provider-secret PRESET=google CLIENT_ID=… (see docs/howto)
	@$(RUN) -m scripts.provider_secret

verify: env ## Verify payment's whole ledger, and name what is wrong first; HEADS=file: against heads that were kept
	@$(RUN) -m scripts.verify

export: env ## Take payment's ledger out to a file, signed: make export FILE=ledger.gz
	@$(RUN) -m scripts.ledger_export

import: env ## Take a ledger in, where there is none, and verify it: make import FILE=ledger.gz
	@$(RUN) -m scripts.ledger_import

test: env-npm ## Run all tests (only some: make test TESTS=tests/payment)
	@$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $${TESTS:-}

soak: export SOAK_SECONDS = $(SECONDS)
soak: env ## Kill, freeze and restart everything under load, and check each answer: make soak [SEED=7] [SECONDS=300]
	@$(TIED) -m tests.soak.soak

check: env ## Lint, formatting, types, import rules, generated files
	@$(RUN) -m ruff check
	@$(RUN) -m ruff format --check
	@$(RUN) -m mypy
	@.venv/bin/lint-imports
	@$(RUN) -m scripts.graphql_schemas --check
	@$(RUN) -m scripts.event_schemas --check

format: env ## Format the code and write the generated files anew
	@$(RUN) -m ruff check --fix
	@$(RUN) -m ruff format
	@$(RUN) -m scripts.graphql_schemas
	@$(RUN) -m scripts.event_schemas

bench: env-npm ## Run the benchmarks (only some: make bench BENCH="cache events")
	@$(RUN) -m scripts.bench

lock: env ## Lock the newest allowed versions of all Python packages
	@$(RUN) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --group dev pyproject.toml --output-file requirements.lock

env:
	@$(PYTHON) -I scripts/environment.py

env-npm:
	@$(PYTHON) -I scripts/environment.py --npm
