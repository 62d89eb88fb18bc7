# A machine with Python 3.11 is enough: every target makes its own .venv first.
#
# torch comes before the rest, at a version whose CPU build pip finds here. Where only PyPI is at hand, Linux takes a
# CUDA build of gigabytes; the CPU build is then
#   make test TORCH='torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu'
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := test
.PHONY: test lint demo sanitize versions clean

$(STAMP): pyproject.toml setup.py $(wildcard runtime/native/*.cpp runtime/native/*.h runtime/native/*.inc)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[train,export,hub,sign,dev]'
	@touch $@

# The linters first, so that pytest's summary comes last; a lint fault does not hide a failing test.
test: $(STAMP)
	@status=0; $(MAKE) --no-print-directory lint || status=1; $(BIN)/python -m pytest || status=1; exit $$status

lint: $(STAMP)
	@status=0; $(BIN)/ruff check . || status=1; $(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; exit $$status

demo: $(STAMP)
	$(BIN)/lime-edge demo

# The native operator's tests under AddressSanitizer, UBSan and ThreadSanitizer; needs Linux and GCC.
sanitize: $(STAMP)
	$(BIN)/python -m tests.tools.sanitize

# Exported models in the oldest onnxruntime that is claimed, two between and the newest, each in an environment of its own.
versions: $(STAMP)
	$(BIN)/python -m tests.tools.versions

clean:
	rm -rf runtime/native/*.so runtime/native/*.dylib runtime/native/*.dll
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
