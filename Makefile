# Every target sets up .venv first (once), so each works as the first command in a fresh clone.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
RUN = .venv/bin/python
PACKAGES = cache teacher_serving student cluster
SPHINX = $(RUN) -m sphinx -q -W --keep-going -b html docs docs/_build
SOURCES = $(PACKAGES) logitbank.py benchmarks docs tests environment
export LOGITBANK_DEVICE TEACHER

.PHONY: help setup demo test test-fast check docs bench format lock clean-demo

help:
	@echo "make demo    teacher -> store -> students on real molecules; report in runs/demo/"
	@echo "             make demo TEACHER=/path/or/name puts another model in the teacher's place"
	@echo "make test    the test suite;  make test-fast  what needs no engine, rank, cluster or server"
	@echo "make check   formatting, lint, types, floors and documentation;  make format  fixes what can be fixed"
	@echo "make docs    the documentation, in docs/_build/index.html"
	@echo "make bench   every benchmark at a small size"
	@echo "make lock    resolve environment/*.lock anew;  make clean-demo  removes runs/demo"

setup:
	@$(PYTHON) environment/install.py

demo: setup
	@PATH="$(CURDIR)/.venv/bin:$$PATH" sh cluster/jobs/demo/demo.sh $(if $(TEACHER),--teacher "$(TEACHER)")

# Two worker processes. Each takes whole files, those with slow tests first, so that tests of a file share what they start.
PYTEST = OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: setup
	@echo "tests: at most 10 minutes on 2 cores; the slowest start real vLLM engines and DeepSpeed ranks"
	@$(PYTEST)

test-fast: setup
	@$(PYTEST) -m "not slow"

check: setup
	@$(RUN) -m ruff format --check $(SOURCES)
	@$(RUN) -m ruff check $(SOURCES)
	@$(RUN) -m mypy $(PACKAGES) logitbank.py
	@.venv/bin/lint-imports --no-cache > .venv/floors.txt || { cat .venv/floors.txt; exit 1; }
	@$(RUN) -m docs.generate --check
	@$(SPHINX)

# Generated pages first: job files, commands, measurements, the demo's table in README.md.
docs: setup
	@$(RUN) -m docs.generate
	@$(SPHINX)
	@echo "docs: docs/_build/index.html"

bench: setup
	@$(RUN) -m benchmarks --quick

format: setup
	@$(RUN) -m ruff format $(SOURCES)
	@$(RUN) -m ruff check --fix $(SOURCES)

# Needs uv. The CPU lock also needs an index, or UV_FIND_LINKS, that has PyTorch's CPU build; the CUDA lock must not see it.
UV_COMPILE = uv pip compile pyproject.toml --extra dev --python-version 3.11 --no-header --no-annotate -q \
	--python-platform x86_64-manylinux_2_28
lock:
	@$(UV_COMPILE) --extra cpu --override environment/cpu-overrides.txt -o environment/cpu.tmp
	@env -u UV_FIND_LINKS -u UV_EXTRA_INDEX_URL $(UV_COMPILE) --extra gpu -o environment/gpu.tmp
	@for device in cpu gpu; do \
		{ echo "# Pinned $$device environment for Python 3.11, installed with --no-deps. Made by 'make lock'."; \
		  cat environment/$$device.tmp; } > environment/$$device.lock; \
		rm -f environment/$$device.tmp; \
	done

clean-demo:
	rm -rf runs/demo
