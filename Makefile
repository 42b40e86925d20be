# `make demo` and `make test` need Python 3.11 or newer, git and make; everything else goes into .venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ASSETS := src/wanimate/weights/embedded/demo
CHARACTER ?= $(firstword $(sort $(wildcard $(ASSETS)/*.png $(ASSETS)/*.jpg)))
SEED ?= 1
SPEED ?= exact
# Tests wait a fifth of the time, so there is one more of them than processors, of which four are used at most.
WORKERS := $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$(( (n > 4 ? 4 : n) + 1 )))
# Freed memory stays with a process of tests: getting its pages anew takes more time than the largest ones compute.
SHARED := OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=2147483647
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo serve-demo test test-browser test-all lint types coverage bench clean models

help:
	@echo "make demo      animate a packaged character by a packaged clip: out/demo.mp4, out/demo.sheet.png"
	@echo "make serve-demo  the same job by HTTP, from a service that is started for it: out/serve-demo.mp4"
	@echo "make test      every test but the slow ones and those in a browser"
	@echo "make test-browser  the studio's tests, in Chromium"
	@echo "make test-all  every test"
	@echo "make lint      ruff and mypy            make types     mypy alone"
	@echo "make coverage  tests, and how much of src they run"
	@echo "make bench     benchmarks for the processor"
	@echo "make clean     remove results and caches (build/ and $(VENV)/ stay)"

demo: $(VENV)/.run models
	@test -n "$(CHARACTER)" || { echo "No character image in $(ASSETS): is the checkout whole?" >&2; exit 1; }
	$(BIN)/wanimate animate --image $(CHARACTER) --video $(ASSETS)/performer.mp4 --out out/demo.mp4 --sheet --overwrite --seed $(SEED) --speed $(SPEED)
	@echo
	@echo "The video is $(CURDIR)/out/demo.mp4"
	@echo "A contact sheet of it is $(CURDIR)/out/demo.sheet.png"

serve-demo: $(VENV)/.serve models
	$(BIN)/python -m wanimate.serve.demo --out out/serve-demo.mp4 --data out/serve --seed $(SEED)

test: $(VENV)/.dev models
	@echo "The studio's tests in a browser are left out: make test-browser runs them."
	$(SHARED) $(BIN)/python -m pytest -m "not slow" --ignore=tests/browser -n $(WORKERS) --dist loadgroup

test-browser: $(VENV)/.dev models
	@command -v "$${WANIMATE_CHROMIUM:-chromium}" >/dev/null || { \
	  echo "Chromium was not found: sudo apt-get install chromium, or name one with WANIMATE_CHROMIUM=/path/to/chrome" >&2; exit 1; }
	WANIMATE_REQUIRE_BROWSER=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser -n logical --maxprocesses 4 --dist loadfile

test-all: $(VENV)/.dev models
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

types: $(VENV)/.dev
	$(BIN)/mypy

coverage: $(VENV)/.dev models
	$(BIN)/python -m pytest -m "not slow" --ignore=tests/browser --cov --cov-report=term:skip-covered
	@echo "Coverage of src: $$($(BIN)/coverage report --format=total) %"

bench: $(VENV)/.dev models
	$(BIN)/python benchmarks/skeleton.py
	$(BIN)/python benchmarks/pose.py $(ASSETS)/performer.mp4
	WANIMATE_MANNEQUINS=tools/mannequin/tests/data/mannequins.npz \
	  $(BIN)/python benchmarks/world.py --device cpu --clips 4 --rounds 2

clean:
	rm -rf out dist .pytest_cache .mypy_cache .ruff_cache .coverage
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The models lie outside the checkout, so their presence is checked each time (0.4 s).
models: $(VENV)/.run
	@$(BIN)/python -m wanimate.preprocess.detect.models
	@$(BIN)/python -m wanimate.post.models

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1): make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is not whole here: sudo apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch goes first and alone: that request is answered with the plain build, a resolver's own choice may be another.
$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet "$$(grep ^torch== constraints.txt)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.serve: $(VENV)/.run
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[serve]'
	@touch $@

# The workshop goes without its dependencies: the tests need none beyond these, and anny is large.
$(VENV)/.dev: $(VENV)/.run tools/mannequin/pyproject.toml
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,c2pa,exr,gguf,onnx,serve,s3,postgres,mcp,telemetry]'
	$(BIN)/python -m pip install --quiet --no-deps -e tools/mannequin
	@touch $@
