# Holdfast: `make up` and `make test` are all a newcomer needs.

HOLDFAST := target/release/holdfast

.PHONY: up down status build setup test bench

## up: install what is missing, build, start a one-node cluster, run a first app on it and show it answering
up: setup build
	@$(HOLDFAST) up
	@dev/first-app

## down: stop the cluster and leave nothing behind
down:
	@if [ -x $(HOLDFAST) ]; then $(HOLDFAST) down; else echo "nothing built, nothing runs"; fi

## status: what runs and what ails
status:
	@$(HOLDFAST) status

build:
	@cargo build --release --locked --package holdfast

setup:
	@dev/setup

## test: every check and test of the project
test: setup
	@dev/test

## bench: the figures of docs/figures.md, as a table; HOLDFAST_LAB adds the stock cluster
bench: setup
	@dev/bench
