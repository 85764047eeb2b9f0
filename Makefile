# Every target sets up .venv first (once), so each works as the first command in a fresh clone.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
RUN = .venv/bin/python
PACKAGES = cache teacher_serving student cluster
SPHINX = $(RUN) -m sphinx -q -W --keep-going -b html docs docs/_build
SOURCES = $(PACKAGES) logitbank.py benchmarks docs tests environment
export LOGITBANK_DEVICE TEACHER
TASK_DEMOS = demo-drug demo-medical demo-science demo-recipe demo-step

.PHONY: help setup demo $(TASK_DEMOS) test test-fast check docs bench format lock clean-demo

help:
	@echo "make demo    teacher -> store -> students on real molecules; report in runs/demo/"
	@echo "             make demo TEACHER=/path/or/name puts another model in the teacher's place"
	@echo "make demo-drug | demo-medical | demo-science | demo-recipe | demo-step"
	@echo "             a distillation project from its data to its report, in runs/NAME/; each takes TEACHER= and DATA="
	@echo "make test    the test suite;  make test-fast  what needs no engine, rank, cluster or server"
	@echo "make check   formatting, lint, types, floors and documentation;  make format  fixes what can be fixed"
	@echo "make docs    the documentation, in docs/_build/index.html"
	@echo "make bench   every benchmark at a small size"
	@echo "make lock    resolve and check environment/*.lock;  make clean-demo  removes what demos made"

setup:
	@$(PYTHON) -m environment.install

demo: setup
	@PATH="$(CURDIR)/.venv/bin:$$PATH" sh cluster/jobs/demo/demo.sh $(if $(TEACHER),--teacher "$(TEACHER)")

# The scripts name their rooms in full: cluster/jobs/drug_editing and so on.
demo-drug: ROOM = drug_editing
demo-medical: ROOM = medical_conversation
demo-science: ROOM = science_scoring
demo-recipe: ROOM = recipe_dialogue
demo-step: ROOM = step_by_step
$(TASK_DEMOS): setup
	@PATH="$(CURDIR)/.venv/bin:$$PATH" sh cluster/jobs/$(ROOM)/demo.sh \
		$(if $(TEACHER),--teacher "$(TEACHER)") $(if $(DATA),--data "$(DATA)")

# Two worker processes. Each takes whole files, those with slow tests first, so that tests of a file share what they start.
PYTEST = OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: setup
	@echo "tests: some 35 minutes on 2 cores, the slow ones first; the slowest start real vLLM engines and DeepSpeed ranks"
	@$(PYTEST)

test-fast: setup
	@$(PYTEST) -m "not slow"

check: setup
	@$(RUN) -m ruff format --check $(SOURCES)
	@$(RUN) -m ruff check $(SOURCES)
	@$(RUN) -m mypy $(PACKAGES) environment logitbank.py
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

# Needs uv. Keeps the versions pinned now where they still fit; UPGRADE=1 takes the newest.
lock: setup
	@$(RUN) -m environment.resolve $(if $(UPGRADE),--upgrade)

clean-demo:
	rm -rf runs/demo $(TASK_DEMOS:demo-%=runs/%)
