# Everything that is needed from a fresh checkout, with Rust, a C++ compiler and python3 with pip. `make help` lists it.
# cargo alone does as well, once `make libtorch` has run.

PYTHON ?= python3
# Tests compute on one thread each, and run in as many threads as there are cores: libtorch would otherwise start a pool
# of that size in each of them, and the number of threads changes the last bits of a sum, which golden numbers would see.
TEST_ENV = OMP_NUM_THREADS=1
KILLS ?= 200

.DEFAULT_GOAL := help
.PHONY: help libtorch quickstart build check test fmt clippy doc bench campaign ci

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 20

libtorch: ## lay out libtorch in .libtorch (CUDA=1: with the CUDA libraries; LIMBECK_LIBTORCH=download: whatever is installed)
	@$(PYTHON) framework/libtorch.py $(if $(filter-out 0,$(CUDA)),--cuda)

quickstart: libtorch ## train a small teacher and students by several methods, and report
	cargo run -- run experiments/configs/quickstart.toml

build: libtorch ## compile everything
	cargo build --workspace

check: libtorch ## type-check everything, tests too
	cargo check --workspace --all-targets

test: libtorch ## run all tests, doctests too
	$(TEST_ENV) cargo test --workspace

fmt: ## format the sources
	cargo fmt --all

clippy: libtorch ## lint, warnings denied
	cargo clippy --workspace --all-targets -- -D warnings

doc: libtorch ## the API's documentation, in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

bench: libtorch ## measure, in the one optimised profile that all else uses
	cargo bench --workspace --profile dev --bench frame --bench data

campaign: libtorch ## kill and resume a small run at KILLS (200) random moments, and compare the student
	LIMBECK_KILLS=$(KILLS) $(TEST_ENV) cargo test --workspace --test cohort random_moments -- --ignored --nocapture

ci: ## what is run before a change is taken
	.ci/run
