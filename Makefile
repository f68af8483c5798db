# Every target does its own set-up: python3.11, make and git are all a machine needs.
PYTHON ?= python3.11
BIN := .venv/bin
USABLE := .venv/.usable
READY := .venv/.ready
LOWEST := .venv-lowest/.ready
RAY := .venv-ray/.ready
PYTEST := $(BIN)/python -m pytest
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder
ADAPTERS := tests/langchain tests/llama_index tests/contract tests/runtime tests/wire

# pytest keeps what it has compiled, or every process compiles all tests again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-lowest test-ray verify verify-quick verify-guarantee verify-ray \
	lint format type bench bench-ray docs clean

# uv installs in seconds; pip does it where uv finds no index, since it alone reads
# pip's own settings.
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# What a user needs, in the versions that the tests run with.
$(USABLE): pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(PIP) uv
	set -- --constraint requirements-dev.txt --editable '.[langchain,cli,progress,plots]'; \
		$(UV) "$$@" || $(PIP) "$$@"
	touch $(USABLE)

$(READY): $(USABLE)
	$(UV) --requirement requirements-dev.txt || $(PIP) --requirement requirements-dev.txt
	touch $(READY)

demo: $(USABLE)  ## a job of 5,250 items and three small ones, through an LCEL chain
	$(BIN)/python examples/demo.py $(ARGS)

test: $(READY)  ## the default tests (four minutes), each file in one of 2 processes
	$(PYTEST) -m "not slow and not guarantee and not bench" $(SPREAD) $(ARGS)

verify-quick: $(READY)  ## the quicker half of verify (ten minutes)
	$(PYTEST) -m "(slow or hypothesis) and not long" --hypothesis-profile=quick \
		--timeout=1200 $(SPREAD) $(ARGS)

verify: $(READY)  ## whole jobs, many examples, the paper's strategies (hours)
	$(PYTEST) -m "slow or hypothesis" --hypothesis-profile=many --timeout=7200 -s $(ARGS)

verify-guarantee: $(READY)  ## violation rates of audits and streams at the worst case (hours)
	$(PYTEST) -m guarantee --timeout=7200 -s $(ARGS)

$(LOWEST): pyproject.toml
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python \
		--resolution lowest-direct --group test --editable '.[all]'
	touch $(LOWEST)

test-lowest: $(LOWEST)  ## the adapters' tests on the lowest versions that pyproject.toml allows
	.venv-lowest/bin/python -m pytest -m "not slow and not guarantee and not bench" \
		$(SPREAD) $(ADAPTERS) $(ARGS)

$(RAY): pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-ray/bin/uv pip install --quiet --python .venv-ray/bin/python \
		--group ray --editable '.[ray,store]'
	touch $(RAY)

test-ray: $(RAY)  ## data sets on a local Ray (five minutes); Dask and Daft
	.venv-ray/bin/python -m pytest -m "not slow and not bench" --timeout=600 \
		tests/on_ray $(ARGS)

verify-ray: $(RAY)  ## 50 processes of Ray are killed at random; Spark (ten minutes)
	.venv-ray/bin/python -m pytest -m slow --timeout=7200 -s tests/on_ray $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(READY)
	$(BIN)/mypy

bench: $(READY)  ## side-by-side ratios, printed
	$(PYTEST) tests/benchmarks -m bench -s $(ARGS)

bench-ray: $(RAY)  ## data sets beside a plain map_batches, up to a million rows
	.venv-ray/bin/python -m pytest tests/on_ray -m bench -s $(ARGS)

docs: $(READY)  ## the API reference and the pages of smart_engine/docs, into build/docs
	$(BIN)/python .ci/reference.py build/docs

clean:
	rm -rf .venv .venv-lowest .venv-ray build .pytest_cache .mypy_cache .ruff_cache .hypothesis
