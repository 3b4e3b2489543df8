# Everything lives in .venv; the locks in requirements/ say exactly what goes into it, by hash.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH ?= torch==2.13.0
DEMO ?= .demo

.PHONY: up install install-tune install-test demo test bench bench-scan bench-traffic bench-verdict bench-canary bench-sensitive bench-audit bench-guard bench-switch bench-tuning interop soak fuzz lint lock docs clean

up: install            ## set up, then serve in the foreground
	@exec $(BIN)/freehold up

install: .venv/.installed  ## set up alone

install-tune: .venv/.installed-tune  ## set up for tuning too: torch and its like, some 800 MB

install-test: .venv/.installed-test

demo: install-tune     ## the whole move on a synthetic task: import, tune, certify, dossier; stops before promotion
	$(BIN)/python examples/tickets/make.py --calls 1450 --seed 7 --mean 0.7 -o examples/tickets/traffic.jsonl
	$(BIN)/freehold switch examples/tickets/switch.toml --home $(DEMO) --commands

bench-tuning: install-test  ## training beside a bare peft loop; writes docs/reference/tuning.md
	$(BIN)/python examples/tickets/make.py --calls 1450 --seed 7 --mean 0.7 -o examples/tickets/traffic.jsonl
	$(BIN)/python benchmarks/tuning.py --model "$$($(BIN)/freehold models show smollm2-135m-instruct --file --home $(DEMO))" --traffic examples/tickets/traffic.jsonl

bench-switch: install-test  ## the whole move, timed and with its memory; writes docs/reference/switch.md. Anew: give another DEMO
	$(BIN)/python examples/tickets/make.py --calls 1450 --seed 7 --mean 0.7 -o examples/tickets/traffic.jsonl
	$(BIN)/python benchmarks/switch.py --home $(DEMO)

test: install-test     ## set up with the test dependencies, then the whole suite; JOBS=1: one file after the other
	$(BIN)/python -m ruff check src tests docs benchmarks examples fuzz
	$(BIN)/python -m ruff format --check src tests docs benchmarks examples fuzz
	$(BIN)/python -m compileall -q src
	$(BIN)/python -m pytest -n $(or $(JOBS),2) --dist loadfile --no-loadscope-reorder

bench: install-test    ## compare the request path with others; writes docs/reference/benchmarks.md
	$(BIN)/python benchmarks/bench.py --rounds $(or $(ROUNDS),5)

bench-scan: install-test  ## compare the scanner with others and with SHA-256; writes docs/reference/scan.md
	$(BIN)/python benchmarks/scan.py $(if $(QUICK),--quick) --rounds $(or $(ROUNDS),5)

bench-traffic: install-test  ## import 100,000 recorded calls in each format; writes docs/reference/traffic.md
	$(BIN)/python benchmarks/traffic.py --rounds $(or $(ROUNDS),3)

bench-verdict: install-test  ## simulate the verdict's errors and power; writes docs/reference/statistics.md
	$(BIN)/python benchmarks/verdict.py

bench-canary: install-test   ## simulate the canary's test; writes docs/reference/canary.md
	$(BIN)/python benchmarks/canary.py --repetitions $(or $(REPETITIONS),2000)

bench-sensitive: install-test  ## what the detectors find on labelled lines; writes docs/reference/sensitive.md
	$(BIN)/python benchmarks/sensitive.py

bench-audit: install-test  ## walk a chain of 1,000,000 events, hand it out and check it elsewhere; writes docs/reference/audit.md
	$(BIN)/python benchmarks/audit.py

bench-guard: install-test  ## what the guard costs a call; writes docs/reference/guard.md
	$(BIN)/python benchmarks/guard.py

interop: install-test  ## let Inspect AI itself read a log of ours
	$(BIN)/python benchmarks/interop.py

fuzz: install-test     ## ten minutes for each parser, two at a time; writes docs/reference/fuzz.md
	$(BIN)/python fuzz/fuzz.py --seconds $(or $(SECONDS),600) $(if $(ONLY),--only $(ONLY))

soak: install-test     ## disconnects, crashes and memory at full size; some ten minutes
	$(BIN)/python benchmarks/soak.py

lint: install-test
	$(BIN)/python -m ruff check src tests docs benchmarks examples fuzz
	$(BIN)/lint-imports

docs: install-test     ## write the generated reference pages anew
	COLUMNS=80 $(BIN)/python docs/generate.py

lock:                  ## renew the locks (needs uv on the PATH; the only target that does)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --upgrade requirements/build.in pyproject.toml --extra hub --extra inspect -o requirements/run.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --upgrade requirements/build.in pyproject.toml --extra hub --extra inspect --extra test -c requirements/run.lock -o requirements/test.lock
	echo "torch; python_version < '3'" > requirements/.torch  # which build fits depends on the machine: it has no hash here
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --upgrade pyproject.toml --extra tune --override requirements/.torch -c requirements/test.lock -o requirements/tune.lock
	rm requirements/.torch

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Freehold needs Python 3.11 or later; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

# --no-deps: the locks are complete, and a resolver would reach for newer releases of what is asked for with an extra
.venv/.installed: requirements/run.lock pyproject.toml src/freehold/__init__.py | .venv/bin/python
	$(PIP) install --quiet --require-hashes --no-deps -r requirements/run.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --no-index --editable .
	$(BIN)/python -m compileall -q src
	@touch $@

.venv/.installed-tune: requirements/tune.lock .venv/.installed
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet --require-hashes --no-deps -r requirements/tune.lock
	@touch $@

.venv/.installed-test: requirements/test.lock .venv/.installed-tune
	$(PIP) install --quiet --require-hashes --no-deps -r requirements/test.lock
	@touch $@
