# Everything a person or a CI job runs. `make help` lists it.
VENV := .venv
BIN := $(VENV)/bin
# The first Python here that is new enough; `make PYTHON=/path/to/python3.12 setup` takes another.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
# -qq: errors only
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
LOCK := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --strip-extras --no-header \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help frontend setup setup-dev run demo test e2e check audit bench lock update-ytdlp

help:
	@echo "make setup   install everything into $(VENV)"
	@echo "make run     set up, then start the whole server (settings: .env, see docs/settings.md)"
	@echo "make demo    show the whole job with stand-ins for YouTube and Telegram, no internet needed"
	@echo "make test    run the tests"
	@echo "make e2e     the tests in a real browser, and new pictures in docs/screenshots"
	@echo "make check   format, lint, types, import contracts, tests"
	@echo "make audit   ask the advisory database about the pinned packages (needs the internet)"
	@echo "make bench   measure this machine (docs/benchmarks.md)"
	@echo "make update-ytdlp  update yt-dlp alone, and keep that only if its tests pass"
	@echo "make lock    write requirements.txt and requirements-dev.txt anew from the .in files"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "ytserver needs Python 3.11 or newer; there is none here. Install it, or say: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is not Python 3.11 or newer: install that, or say: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(BIN)/python
	@echo "Installing the program's packages into $(VENV) (once, a few minutes) ..."
	@$(PIP) install -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt | $(BIN)/python
	@echo "Installing the packages for tests and checks into $(VENV) (once, a few minutes) ..."
	@$(PIP) install -r requirements-dev.txt
	@touch $(VENV)/.installed $@

# The admin's front-end files. Everything but the admin's looks works without them, so a failure only warns.
frontend: | $(VENV)/.installed
	@$(BIN)/python scripts/frontend.py || echo "Going on without the admin's front-end files; \`make setup\` tries again."

# Compiled once, also where PYTHONDONTWRITEBYTECODE is set: each of the server's processes would compile all of it at its start.
setup: $(VENV)/.installed frontend
	@$(BIN)/python -m compileall -q apps ytserver || true

setup-dev: $(VENV)/.installed-dev frontend
	@:

run: setup
	@exec $(BIN)/python manage.py up

demo: setup-dev
	@exec $(BIN)/python manage.py demo

test: setup-dev
	@exec $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

e2e: setup-dev
	@E2E_SCREENSHOTS=1 $(BIN)/python -m pytest -q -rs tests/e2e tests/dashboard/test_browser.py

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m bandit -q -c pyproject.toml -ll -r apps ytserver scripts
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

# Asks the advisory database about every pinned package: needs the internet, so it is no part of `check`.
audit: setup-dev
	$(BIN)/python -m pip_audit --disable-pip --no-deps -r requirements.txt

bench: setup-dev
	@$(BIN)/python -m bench.all --write

lock: setup-dev
	$(LOCK) --output-file requirements.txt requirements.in
	$(LOCK) --output-file requirements-dev.txt requirements-dev.in

update-ytdlp: setup-dev
	@$(BIN)/python scripts/update_ytdlp.py
	@touch $(VENV)/.installed $(VENV)/.installed-dev
