# Every command of the project. Needs make and Python 3.11 or newer with venv; sets up the rest by itself in .venv.
PYTHON ?= python3
CORES ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
CONFIG ?= config/config.yaml
UV_VERSION := 0.13.9

VENV := .venv
UV := $(VENV)/.uv/bin/uv
INSTALLED := $(VENV)/.installed
# The venv's tools come first on PATH, so that `python` in a rule or a test is the venv's.
IN_VENV := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"
PYTEST = $(IN_VENV) OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 pytest -n $(CORES) --dist worksteal
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-all bench gpu slurm-test costs doctor check recover adopt verify register lock schema docs clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## Run the demo experiment and write results/demo/report.html (CORES=n limits the cores)
	@$(IN_VENV) python -m resalign.running.stage_server \
		snakemake --cores $(CORES) --configfile config/demo.yaml --rerun-incomplete --quiet rules host -- demo
	@echo "The demo's page: results/demo/report.html"

test: $(INSTALLED) ## Run the quick tests, in minutes: every module, one process a core (ARGS="-k name" passes options to pytest)
	@$(PYTEST) -m "not slow and not large" $(ARGS)

test-all: $(INSTALLED) ## Run the quick tests and the slow ones: real workflows, kills, the browser (ARGS as above)
	@$(PYTEST) -m "not large" $(ARGS)

bench: $(INSTALLED) ## Time a step of each kind and sampling beside the same written plainly (DEVICE=cuda: at v1.4's size)
	@$(IN_VENV) python bench/speed.py "$(or $(FOLDER),resources/bench)" --device $(or $(DEVICE),cpu)

gpu: $(INSTALLED) ## On a GPU, under 10 minutes: a step of each row of ResAlign, 16 images, the tests marked cuda (FOLDER=path, 11 GB)
	@$(IN_VENV) sh bench/gpu.sh "$(or $(FOLDER),resources/gpu)"

slurm-test: $(INSTALLED) ## Run a small grid, disturbed in every way, and the paper's in small on a SLURM of its own (root on Debian; installs slurm-wlm, munge)
	@$(IN_VENV) python -m tests.slurm.cluster
	@$(IN_VENV) pytest tests/slurm -m "large or not large" $(ARGS)

costs: $(INSTALLED) ## Jobs, device hours and disk of an experiment before it is run (CONFIG=config/demo.yaml for another)
	@$(IN_VENV) python -m resalign.accounting.costs --configfile $(CONFIG) $(ARGS)

doctor: $(INSTALLED) ## What is missing for which table, how large, under which licence; GPU, disk, tokens (CONFIG=... for another)
	@$(IN_VENV) python scripts/doctor.py --configfile $(CONFIG) $(ARGS)

recover: $(INSTALLED) ## After a hard kill: end the jobs that are left and unlock the folder; the same command then goes on
	@$(IN_VENV) python scripts/recover.py $(ARGS)

adopt: $(INSTALLED) ## Take over results/ that another folder or machine has made (CONFIG="one.yaml other.yaml" and, for targets, ARGS="-- paper")
	@$(IN_VENV) python scripts/adopt.py --configfile $(CONFIG) $(ARGS)

verify: $(INSTALLED) ## Check an archive of a result and make its tables again (ARTIFACT=path.zip ARGS=--run-its-code); without: every file below results/
	@$(IN_VENV) python scripts/$(if $(ARTIFACT),verify.py $(ARTIFACT),check_results.py) $(ARGS)

register: $(INSTALLED) ## Write down what a study fixes, to be committed before it is run (CONFIG=config/studies/resilience.yaml)
	@$(IN_VENV) python -m resalign.study.register $(CONFIG)

check: $(INSTALLED) ## Run every static check: ruff, mypy, snakefmt, snakemake --lint
	@$(IN_VENV) ruff check
	@$(IN_VENV) ruff format --check
	@$(IN_VENV) mypy src scripts
	@$(IN_VENV) snakefmt --check workflow
	@$(IN_VENV) snakemake --lint --configfile config/demo.yaml

lock: $(UV) ## Renew envs/requirements.lock, envs/uv.txt and the conda environment (UPGRADE=--upgrade for newer versions)
	$(COMPILE) $(UPGRADE) --all-extras -o envs/requirements.lock pyproject.toml
	echo "uv==$(UV_VERSION)" | $(COMPILE) --only-binary :all: --no-annotate -o envs/uv.txt -
	$(PYTHON) envs/pin_lock.py

schema: $(INSTALLED) ## Write the JSON schemas with which an editor completes configurations, workflow/schemas/
	@$(IN_VENV) python -m resalign.config.schema

docs: $(INSTALLED) ## Build the documentation's site, site/index.html; a warning is an error
	@$(IN_VENV) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

clean: ## Remove .venv and every cache; results stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache src/*.egg-info
	find src scripts tests envs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# An installation runs alone in its .venv: a second one waits, then finds its work done. uv has the name .lock there.
ifndef ALONE
define IN_TURN
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "error: '$(PYTHON)' is missing or older than Python 3.11 (got: $$($(PYTHON) --version 2>&1 | tail -n 1));" \
	"install Python 3.11 or newer, or name one: make PYTHON=python3.12 ..." >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "error: '$(PYTHON)' cannot make virtual environments (module ensurepip or venv is missing);" \
	"on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
+@$(PYTHON) envs/one_at_a_time.py $(VENV)/.make-lock $(MAKE) --no-print-directory ALONE=yes $@
endef

$(UV): envs/uv.txt
	$(IN_TURN)

$(INSTALLED): envs/uv.txt envs/requirements.lock pyproject.toml
	$(IN_TURN)
else
# The pinned uv lives in a folder of its own: `uv pip sync` removes from the venv whatever the lock does not name.
# It gets its name when it is whole.
$(UV): envs/uv.txt
	@echo "Installing the pinned uv ..."
	@rm -rf $(VENV)/.uv.part
	@$(PYTHON) -m venv $(VENV)/.uv.part/pip
	@$(VENV)/.uv.part/pip/bin/python -m pip install --quiet --disable-pip-version-check --target $(VENV)/.uv.part/uv \
		--only-binary :all: --require-hashes --requirement envs/uv.txt
	@touch $(VENV)/.uv.part/uv/bin/uv
	@rm -rf $(VENV)/.uv
	@mv $(VENV)/.uv.part/uv $(VENV)/.uv
	@rm -rf $(VENV)/.uv.part

# `.installed` stands for a whole environment: it goes before anything is changed and comes back at the end. Without it,
# what there is was left by an installation that was killed, of which uv takes any package with metadata for whole:
# everything but uv is removed and made anew, from uv's cache.
# Bytecode is compiled here because PYTHONDONTWRITEBYTECODE may be set, and imports take twice as long without it.
# The few packages without a wheel are built with the setuptools that the lock pins, never with the newest.
$(INSTALLED): $(UV) envs/requirements.lock pyproject.toml
	@echo "Installing the locked packages into $(VENV) ..."
	@if test -e $@ && $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		rm $@; \
	else \
		rm -f $@ && find $(VENV)/ -mindepth 1 -maxdepth 1 ! -name .uv ! -name .make-lock -exec rm -rf {} + && \
		$(PYTHON) -m venv --without-pip $(VENV); \
	fi
	@$(UV) pip sync --quiet --python $(VENV)/bin/python --compile-bytecode --require-hashes \
		--build-constraints envs/requirements.lock envs/requirements.lock
	@$(UV) pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --offline --editable .
	@touch $@
endif
