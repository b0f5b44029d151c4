# What each target does is in tools/dev.py, which runs without make too: `python tools/dev.py bench`.
# Arguments for pytest: `make bench ARGS="--rwkv-quant=f16 --rwkv-save-baseline"`.

PYTHON ?= python3

.PHONY: help setup setup-cuda bench test lint types docs prove clean
.DEFAULT_GOAL := help

help:
	@$(PYTHON) tools/dev.py --help

setup setup-cuda bench test lint types docs prove clean:
	@$(PYTHON) tools/dev.py $@ $(ARGS)
