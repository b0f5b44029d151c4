# What each target does is in tools/dev.py, which runs without make too: `python tools/dev.py bench`.
# Arguments for pytest: `make bench ARGS="--rwkv-quant=f16 --rwkv-save-baseline"`. Proofs by name: `make prove gate ab`.

PYTHON ?= python3

.PHONY: help setup setup-cuda bench test lint types docs prove clean
.DEFAULT_GOAL := help

ifeq ($(firstword $(MAKECMDGOALS)),prove)
NAMES := $(filter-out prove,$(MAKECMDGOALS))
.PHONY: $(NAMES)
$(NAMES): ; @:
endif

help:
	@$(PYTHON) tools/dev.py --help

setup setup-cuda bench test lint types docs prove clean:
	@$(PYTHON) tools/dev.py $@ $(NAMES) $(ARGS)
