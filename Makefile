# supafly: the commands for people and for CI. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
CARGO ?= cargo

.PHONY: help dev image test test-image bench bench-image lint fmt docs parts packer-validate clean-dev

help: ## list the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

dev: ## run the real thing in the foreground, with an embedded default (Ctrl-C stops it)
	@scripts/dev.sh

image: ## build localhost/supafly:TARGET; `make image TARGET=slim|full PARTS=release|registry`
	@TARGET="$(TARGET)" PARTS="$(PARTS)" scripts/image/build.sh

test: ## install the real parts, build, run every test
	@scripts/test.sh

test-image: ## build the image and test it in containers; `make test-image TESTS=stop` runs only these
	@scripts/image/test.sh $(TESTS)

bench-image: ## what the image costs: size, boot, memory, into docs/image-benchmarks.md (on a quiet machine)
	@scripts/image/bench.sh

bench: ## the numbers beside our peers; `make bench ROWS="start_six --quick"` runs only these
	@scripts/bench.sh $(ROWS)

lint: ## clippy, fmt, deny: must be clean
	@scripts/lint.sh

fmt: ## format the code
	@$(CARGO) fmt

docs: ## write the pages that are made from the code
	@SUPAFLY_BLESS=1 $(CARGO) test -q --lib --test layering --test deploy the_page_of >/dev/null

parts: ## install what tests need beyond Rust, Go, Node and npm
	@scripts/parts/all.sh

packer-validate: ## packer's files and the systemd unit, checked with Debian's packer and systemd
	@scripts/packer/validate.sh

clean-dev: ## throw away the data of `make dev`
	@scripts/dev.sh --clean
