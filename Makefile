# Everything a contributor types. Each target works on a fresh machine by itself; `make setup` is instant the second time.
.PHONY: run setup test test-slow test-faults test-kernels test-v2 test-gpu bench-gpu loadtest report-kernels check lock deploy-tools topology images clean
.DEFAULT_GOAL := run

PYTHON := .venv/bin/python
STAMP  := .venv/.complete
KERNELS_PYTHON := .venv-kernels/bin/python
KERNELS_STAMP  := .venv-kernels/.complete
GPU_PYTHON     := python3
# Before a command: no GPU and no torch is a reason to skip it; a GPU without torch is an error.
WITH_TORCH      = $(GPU_PYTHON) -c 'import torch' 2>/dev/null || { \
  echo "skipped: $(GPU_PYTHON) has no torch; docs/gpu.md says what to install"; test ! -e /dev/nvidiactl; exit; };
# Two at a time, a file's tests together, for they share engines. Each engine computes with one thread on two cores.
TOGETHER       := -n 2 --dist loadfile --no-loadscope-reorder
KERNELS_TESTS   = tests/model_runner/kernels tests/model_runner/model/test_chunk.py
# What `make test ARGS=…` selects is for the other environment.
KERNELS_ARGS    = $(if $(filter test-kernels,$(MAKECMDGOALS)),$(ARGS))

run: setup            ## serve the embedded maze model on port 8000
	@.venv/bin/ilvr serve $(ARGS)

setup: $(STAMP)       ## make .venv with the CPU engine and all test tools

$(STAMP): requirements/cpu.txt pyproject.toml tools/setup.sh
	@bash tools/setup.sh .venv requirements/cpu.txt
	@touch $@

$(KERNELS_STAMP): requirements/cpu.txt requirements/kernels.txt pyproject.toml tools/setup.sh
	@bash tools/setup.sh .venv-kernels requirements/cpu.txt requirements/kernels.txt
	@touch $@

test: check test-kernels deploy-tools  ## everything CI runs
	$(PYTHON) -m pytest tests $(TOGETHER) --durations=25 --ignore=tests/architecture --ignore=tests/docs $(ARGS)

test-slow: setup      ## the exhaustive tests: every position of every block, and a crowd for four times five minutes
	$(PYTHON) -m pytest tests -m slow $(TOGETHER) $(ARGS)

# One scenario after the other: the fleet of one uses every core. Rows are kept as they come, so that a run that fails
# shows how far it came.
test-faults: setup    ## a fleet with the embedded model, 200 requests in flight, broken in every way: a quarter of an hour
	rm -rf build/faults
	ILVR_FAULTS_REPORT=build/faults $(PYTHON) -m pytest tests/faults -m "faults or not faults" $(ARGS); \
	  status=$$?; $(PYTHON) -m tests.faults.table build/faults && exit $$status

# Where triton is installed, the first command tests both implementations of the latent step.
test-kernels: $(KERNELS_STAMP)  ## the Triton kernels: interpreted on a CPU, then compiled for GPUs that are not there
	TRITON_INTERPRET=1 $(KERNELS_PYTHON) -m pytest $(TOGETHER) $(KERNELS_TESTS) $(KERNELS_ARGS)
	$(KERNELS_PYTHON) -m pytest tests/kernels $(KERNELS_ARGS)

report-kernels: $(KERNELS_STAMP)  ## registers, shared memory and spills of the kernels on three architectures
	$(KERNELS_PYTHON) -m benchmarks.kernel_report

# Engines are processes of their own, so what makes vLLM believe in an interpreted Triton comes with the environment.
test-v2: $(KERNELS_STAMP)  ## vLLM's Model Runner V2 on a CPU, Triton interpreted: eight minutes
	PYTHONPATH=tests/v2/forced TRITON_INTERPRET=1 $(KERNELS_PYTHON) -m pytest tests/v2 -m slow $(TOGETHER) $(ARGS)

# These two take the environment that is active: docs/gpu.md says what must be in it. Warnings of a build that was never
# tried are shown, and are no errors.
test-gpu:             ## on a GPU: graphs and compiled kernels give the recorded tokens; skips without one
	@$(WITH_TORCH) $(GPU_PYTHON) -m pytest tests/model_runner/kernels/test_parity.py tests/gpu -m gpu -W default $(ARGS)

loadtest: setup       ## load on a server, five minutes: ARGS="--host URL", else on one of its own; ARGS=--help says more
	$(PYTHON) -m loadtests $(ARGS)

bench-gpu:            ## on a GPU: ms per text and latent step, eager and with graphs; skips without one
	@$(WITH_TORCH) $(GPU_PYTHON) -m benchmarks.gpu $(ARGS)

deploy-tools:         ## docker-compose, haproxy, prometheus and a linter, which tests of deploy/ run
	@bash tools/deploy_tools.sh

topology: setup deploy-tools  ## deploy/compose.yml as processes in namespaces, used and stopped again: two minutes; needs root
	$(PYTHON) -m tools.topology $(ARGS)

images:               ## the Dockerfile's gateway and runner-cpu, built by buildah without an engine; needs root and 15 GB
	bash tools/images.sh

check: setup          ## format, lint, types, import rules, and the code blocks of README and docs
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	$(PYTHON) -m pytest -q tests/architecture tests/docs

# cpu.txt is what is tested here; the images take those versions, as far as they need them. Only the last is for GPUs, where
# nothing is kept out: pyproject.toml's overrides are for CPUs.
LOCK        = .venv/bin/uv pip compile -q pyproject.toml --python-version 3.11 --no-header
CPU_BACKEND = $(if $(PIP_FIND_LINKS),,--torch-backend cpu)
lock: export UV_FIND_LINKS = $(PIP_FIND_LINKS)
lock: setup           ## resolve requirements/ anew
	$(LOCK) --extra cpu --extra train --extra otel --extra dev -o requirements/cpu.txt $(CPU_BACKEND)
	$(LOCK) --extra otel -c requirements/cpu.txt -o requirements/gateway.txt
	$(LOCK) --extra cpu --extra otel -c requirements/cpu.txt -o requirements/runner-cpu.txt $(CPU_BACKEND)
	env -u UV_FIND_LINKS $(LOCK) --no-config --python-platform x86_64-manylinux_2_28 --extra cuda --extra otel \
	  -c requirements/gateway.txt -o requirements/runner-cuda.txt

clean:
	rm -rf .venv .venv-kernels build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
