# The whole gate: `make all`. The two commands of the README: `make demo`, `make test`.
.DEFAULT_GOAL := all
.PHONY: all format lint build test test-rust test-python bench bench-smoke soak demo docs interop-tools clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Quick to compile, fast enough to run a server on; `make bench` and the wheels use `release`.
PROFILE ?= quick
RUST_SOURCES := $(shell find rust -name '*.rs' -not -path '*/target/*') Cargo.toml Cargo.lock $(wildcard rust/*/Cargo.toml)

all: format lint build test

$(VENV)/.installed: requirements/dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.txt
	touch $@

# The compiled module stands beside the Python sources, so that an edit of those needs no build.
$(VENV)/.built-$(PROFILE): $(VENV)/.installed $(RUST_SOURCES) pyproject.toml
	VIRTUAL_ENV=$(abspath $(VENV)) PATH="$(abspath $(BIN)):$$PATH" $(BIN)/maturin develop --quiet --skip-install --profile $(PROFILE)
	$(BIN)/python -c "import pathlib, site; pathlib.Path(site.getsitepackages()[0], 'mcp_fastguard.pth').write_text('$(abspath python)\n')"
	rm -f $(VENV)/.built-*
	touch $@

build: $(VENV)/.built-$(PROFILE)

format: $(VENV)/.installed
	cargo fmt --all
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix-only .

lint: build
	cargo fmt --all --check
	cargo clippy --quiet --profile quick --workspace --all-targets --features fastguard-core/schema -- -D warnings
	cargo clippy --quiet --profile quick -p fastguard-core --all-targets --no-default-features --features ring -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level error check bans licenses sources; \
	  else echo "SKIPPED: cargo-deny is not installed, so licences and bans were not checked"; fi
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest mcp_fastguard._fastguard --ignore-disjoint-bases

test: test-rust test-python

test-rust:
	cargo test --quiet --profile quick -p fastguard-core --features schema
	cargo test --quiet --profile quick -p fastguard-core --no-default-features --features ring

test-python: build
	$(BIN)/python -m pytest

# Hours of tests in minutes: kill -9 series, millions of keys.
soak: build
	cargo test --profile quick -p fastguard-core --features schema -- --ignored
	$(BIN)/python -m pytest -m soak

bench:
	$(MAKE) build PROFILE=release
	$(BIN)/python benches/compare.py

bench-smoke: build
	$(BIN)/python benches/compare.py --smoke

demo: build
	$(BIN)/python -m mcp_fastguard.cli demo

docs: $(VENV)/.installed
	$(BIN)/zensical build --clean

# Node and the two tools that speak MCP from outside, by name from npm.
interop-tools:
	tests/interop/node/install

clean:
	rm -rf $(VENV) target .cache site
