# Every target does its own set-up: python3.11, make and git are all a machine needs.
PYTHON ?= python3.11
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test verify verify-guarantee lint format type bench docs clean

$(READY): pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(READY)

demo: $(READY)  ## the main job: three recorded tasks, each a batch through an LCEL chain
	$(BIN)/python examples/demo.py $(ARGS)

test: $(READY)  ## the default tests (minutes), each file in one of 3 processes
	$(BIN)/python -m pytest -m "not slow and not guarantee and not bench" \
		-n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

verify-guarantee: $(READY)  ## violation rates of audits and streams at the worst case (up to an hour)
	$(BIN)/python -m pytest -m guarantee -s $(ARGS)

verify: $(READY)  ## violation rates of the paper's strategies (more minutes)
	$(BIN)/python -m pytest -m slow -s $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(READY)
	$(BIN)/mypy

bench: $(READY)  ## side-by-side ratios, printed
	$(BIN)/python -m pytest tests/benchmarks -m bench -s $(ARGS)

docs: $(READY)  ## the API reference and the pages of smart_engine/docs, into build/docs
	$(BIN)/python .ci/reference.py build/docs

clean:
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis
