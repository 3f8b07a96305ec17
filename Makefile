# Each target calls one documented command; see README.md.
.PHONY: demo demo-billing test lint bench setup

demo:
	integration/demo

demo-billing:
	integration/demo-billing

test: setup lint
	.venv/bin/python -m pytest -n 3 --dist loadfile

lint: setup
	integration/lint

bench: setup
	.venv/bin/python tests/bench/overhead.py
	.venv/bin/python tests/bench/slurm.py
	.venv/bin/python tests/bench/workflow.py
	.venv/bin/python tests/bench/client.py

setup:
	integration/setup
