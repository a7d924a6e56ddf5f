# Macondo from nothing: each command makes .venv from the lock first, if it is not there yet.
# Inside the environment everything is plain Snakemake: source .venv/bin/activate.

# The interpreter that makes .venv: make all PYTHON=python3.12
PYTHON ?= python3

# The run that make readme records, by the name of its folder or another one, as in:
# make readme RUN=results/elsewhere NAME="a second processor"
RUN ?= results/cpu-gazetteer
NAME ?=

FOUND = { command -v $(PYTHON) >/dev/null || { echo "error: Macondo needs Python 3.11 or newer, but there is no $(PYTHON); install it or name another, as in: make all PYTHON=python3.12" >&2; exit 1; }; }
SETUP = $(FOUND) && $(PYTHON) envs/create.py
ENTER = export PATH="$(CURDIR)/.venv/bin:$$PATH"
SNAKEFMT = uv tool run --quiet --python .venv/bin/python --from snakefmt==2.1.0 snakefmt --line-length 100

.PHONY: all test lint bench readme exhibits lock clean help

all: ## every table and figure at the cpu scale
	@$(SETUP) && $(ENTER) && snakemake --cores all all

test: ## the tests, on up to four cores
	@$(SETUP) --test && $(ENTER) && python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: ## form: ruff, snakefmt and the linter of Snakemake
	@$(SETUP) --test && $(ENTER) && ruff check && ruff format --check && $(SNAKEFMT) --check Snakefile workflow && snakemake --lint

bench: ## speed against peers and bounds, into docs/measurements/cpu.md
	@$(SETUP) && $(ENTER) && python benchmarks/write_page.py

readme: ## record the verdicts of a run and render them in README.md: RUN is its folder, NAME what it is recorded as
	@$(SETUP) && $(ENTER) && PYTHONPATH=scripts python -m knnlm.evidence.readme $(RUN) $(if $(NAME),"$(NAME)")

exhibits: ## write docs/exhibits.md: every table and figure of the papers, and which experiment has it
	@$(SETUP) && $(ENTER) && PYTHONPATH=scripts python -m knnlm.evidence.exhibits

lock: ## compile envs/constraints.txt from the lists beside it; known pins stay
	@$(SETUP) && $(ENTER) && uv pip compile --quiet --universal --python-version 3.11 --no-header envs/requirements.in envs/requirements-test.in --output-file envs/constraints.txt

clean: ## remove .venv and what the checks leave; results/ and data/downloads/ stay
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis && find scripts tests -name __pycache__ -prune -exec rm -rf {} +

help: ## this list
	@sed -n 's/^\([a-z]*\): ## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 14
