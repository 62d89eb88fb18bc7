# A machine with Python 3.11 is enough: every target first creates .venv.
#
# torch is installed first, at a fixed version. On Linux, PyPI only has its CUDA build, of several gigabytes. To install
# the CPU build:
#   make test TORCH='torch==2.13.0 --extra-index-url https://download.pytorch.org/whl/cpu'
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
JOBS ?= 2  # test files that run at the same time
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := test
.PHONY: test lint demo serve serve-test sanitize versions clean web web-test arm

$(STAMP): pyproject.toml setup.py $(wildcard runtime/native/*.cpp runtime/native/*.h runtime/native/*.inc)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[train,export,hub,sign,data,dev]'
	@touch $@

# Linters run first, so that pytest's summary comes last. The tests also run if a linter fails.
test: $(STAMP)
	@status=0; $(MAKE) --no-print-directory lint || status=1; $(BIN)/python -m pytest -n $(JOBS) --dist loadfile || status=1; exit $$status

lint: $(STAMP)
	@status=0; $(BIN)/ruff check . || status=1; $(BIN)/ruff format --check . || status=1; \
	$(BIN)/mypy || status=1; exit $$status

demo: $(STAMP)
	$(BIN)/lime-edge demo

# The demo's model behind an API like OpenAI's, with a page to try it: http://127.0.0.1:8000
serve: $(STAMP)
	$(BIN)/lime-edge demo --dir $(VENV)/demo-model
	$(BIN)/lime-edge serve $(VENV)/demo-model --name base --page

# What the tests leave out of the server: LangChain, a browser, curl, 20,000 bodies, ten minutes of mixed streams with
# updates, kill -9 under load, 1,000 silent connections, and Ray Serve. MINUTES=1 is a short run.
serve-test: $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[serve-test,ray]'
	$(BIN)/python -m pytest -W default tests/server/slow/*.py  # ray and langchain warn when they are imported

# Tests of the native operator under AddressSanitizer, UBSan and ThreadSanitizer. Needs Linux and GCC.
sanitize: $(STAMP)
	$(BIN)/python -m tests.tools.sanitize

# Exported models in the oldest supported onnxruntime, two in between and the newest, each in its own environment.
versions: $(STAMP)
	$(BIN)/python -m tests.tools.versions

# lime-edge-web: needs Node 20 or later with npm, and Chromium for the tests (CHROMIUM names it if it is elsewhere).
# The model is the demo's, unless DEMO names another model directory with skills.
WEB := runtime/web
DEMO ?= build/demo

$(WEB)/dist/node.js: $(WEB)/package-lock.json $(shell find $(WEB)/src -name '*.ts' 2>/dev/null)
	cd $(WEB) && npm ci --no-audit --no-fund && npm run --silent build

$(DEMO)/lime.json: | $(STAMP)
	$(BIN)/lime-edge demo --dir $(DEMO)

build/web/lime.json: $(DEMO)/lime.json
	$(BIN)/lime-edge export $(DEMO) --target web --overwrite -o build/web

web: $(WEB)/dist/node.js build/web/lime.json
	node $(WEB)/serve.mjs build/web

web-test: $(WEB)/dist/node.js $(DEMO)/lime.json
	rm -rf build/web-fixtures
	$(BIN)/python -m tests.tools.platforms.web_fixtures build/web-fixtures --demo $(DEMO)
	cd $(WEB) && npm run --silent check && LIME_FIXTURES=$(abspath build/web-fixtures) npm run --silent test

# The native operators on aarch64 under qemu; needs Debian with g++-aarch64-linux-gnu and qemu-user.
arm: $(STAMP)
	$(BIN)/python -m tests.tools.platforms.arm

clean:
	rm -rf runtime/native/*.so runtime/native/*.dylib runtime/native/*.dll
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
