# One virtual environment serves every target. Python 3.11 or newer is all that has to be there.
#
#   make test PYTHON=python3.12
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu     torch without CUDA, from PyTorch's own index
#   make bench THREADS=1                                           threads of torch, for both sides of every ratio

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
THREADS ?= 2

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt

# The core is covered to the last branch, the rest to 90 %.
CORE := langchain_rain/search/*,langchain_rain/rubrics/*,langchain_rain/drivers.py,langchain_rain/budget.py

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-servers check demo-eval rubric-eval bench bench-agents bench-servers demo-model rubric-schema clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP)  ## the virtual environment, anew if pyproject.toml or constraints.txt changed

# pip comes first: the one that venv brings knows no dependency groups.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "langchain-rain needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --quiet --upgrade pip
	$(INSTALL) --quiet --build-constraint constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
	  --editable '.[transformers,eval,server]' --group dev
	@touch $@

demo: venv  ## the bundled model answering with and without RAIN
	$(BIN)/langchain-rain demo

# A worker for each core, at most four: each loads torch and models, 1 to 2 GB, and more of them fit no small machine.
# `worksteal` gives each a run of neighbours, so that fixtures of a module are made once or twice, and evens out the end.
test: venv  ## the tests and their coverage; one thread for each worker, as the models in them are tiny
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal --cov --cov-report=
	$(BIN)/coverage report --include='$(CORE)' --fail-under=100
	$(BIN)/coverage report --omit='$(CORE)' --fail-under=90

test-servers: venv  ## the tests against real inference servers, which are installed first (3 GB, 10 minutes)
	$(INSTALL) --quiet --group servers
	$(BIN)/python scripts/install_servers.py $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/servers --allow-hosts=127.0.0.1 -o faulthandler_timeout=900

check: venv  ## style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

demo-eval: venv  ## what RAIN gains on the demo's questions, by preset, and what it costs (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m langchain_rain.evaluation.demo_eval --out benchmarks/results/demo_eval.json

rubric-eval: venv  ## how well the demo model judges its three rubrics, and what several at once do (minutes)
	for rubric in harmlessness politeness contact_details; do \
	  $(BIN)/python benchmarks/demo_rubric_cases.py --rubric $$rubric --num 300 --out $(VENV)/cases_$$rubric.jsonl && \
	  $(BIN)/langchain-rain rubric check $$rubric --examples $(VENV)/cases_$$rubric.jsonl \
	    --json benchmarks/results/rubric_check_$$rubric.json || exit 1; \
	done
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/several_rubrics.py --out benchmarks/results/several_rubrics.json

rubric-schema: venv  ## the JSON Schema of rubrics, after a change of theirs
	$(BIN)/python scripts/rubric_schema.py

bench: venv  ## cost and speed against plain sampling, how they grow, memory, repairs, telemetry, event loops (50 minutes, idle)
	for name in against_vanilla against_naive scaling memory repairs telemetry llama_index_loop; do \
	  $(BIN)/python -m benchmarks.$$name --threads $(THREADS) --out benchmarks/results/$$name.json || exit 1; \
	done
	$(BIN)/python -m benchmarks.tables

bench-agents: venv  ## what guards of agents stop, and what in error (a minute)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.agent_attacks --threads 1 --out benchmarks/results/agent_attacks.json
	$(BIN)/python -m benchmarks.tables

bench-servers: venv  ## quality, cache, client and scaling with real inference servers (25 minutes); after test-servers
	for name in servers client_overhead data_parallel; do \
	  OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$$name --threads 1 --out benchmarks/results/$$name.json || exit 1; \
	done
	$(BIN)/python -m benchmarks.tables

demo-model: venv  ## train the bundled model again
	$(BIN)/python scripts/train_demo_model.py

clean:  ## remove the virtual environment, caches and builds
	rm -rf $(VENV) dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
