# The two commands of the README are `make demo` and `make test`; each sets up what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= odefend-demo

.PHONY: demo test test-slow bench bench-quick check lint clean

demo: $(VENV)/ready
	$(BIN)/odefend demo --out $(OUT)

test: $(VENV)/ready
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow

# torchode pins packages that the tests must not meet, so the peers have an environment of their own.
bench: $(VENV)-bench/ready
	$(VENV)-bench/bin/python benchmarks/run.py
	$(VENV)-bench/bin/python benchmarks/attacks.py

bench-quick: $(VENV)-bench/ready
	$(VENV)-bench/bin/python benchmarks/run.py --quick --seconds 10 --out benchmarks/.cache/quick

lint: $(VENV)/ready
	$(BIN)/ruff check src tests benchmarks docs
	$(BIN)/pyright

check: lint test

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

$(VENV)-bench/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-bench $(OUT)
