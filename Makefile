# Two commands to know: `make demo` and `make test`. Everything lives in .venv; nothing is installed system-wide.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Images of containers often set it; then every topod and topoctl that is started compiles its modules anew.
unexport PYTHONDONTWRITEBYTECODE
# Many tests wait for engines and grace times more than they compute.
WORKERS ?= $(shell echo $$((2 * $$(nproc))))

.PHONY: help setup demo test check fix bench evidence peers soak soak-fuzz soak-fleet deb docs site links clean
help:
	@echo "make demo       see a preemption in a few seconds, on an emulated host"
	@echo "make test       run the tests; what is missing here is skipped, with the reason"
	@echo "make check      format, lint, types, import rules;  make fix: mend the first two"
	@echo "make bench      measure; TOPOD_SHORT=1: the short form"
	@echo "make evidence   the paper's experiment and measured traces again: writes docs/evidence.md"
	@echo "make peers      a real Slurm and topod in the same states: writes docs/evidence.md"
	@echo "make soak       thousands of simulated days with faults; SEED=N: one of them again"
	@echo "make soak-fleet ten minutes of a real fleet under faults, as root; SEED=N: the same faults again"
	@echo "make soak-fuzz  a hundred thousand damaged inputs"
	@echo "make deb        a Debian package in dist/, for this machine's Python"
	@echo "make docs       write the generated pages anew"
	@echo "make site       the documentation as a site with a search: build/site/index.html;  make links: its outward links"
	@echo "make setup      only make .venv, which all others do by themselves;  make clean: remove it"

setup: $(VENV)/.ready
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "topod needs Python 3.11 or newer; use make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade 'pip>=25.1'
	$(BIN)/pip install -q -e '.[tui,web]' --group dev
	touch $@

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup
	$(BIN)/pytest -n $(WORKERS)

demo: setup
	@$(BIN)/python -m demo

bench: setup
	$(BIN)/python -m bench

# Thousands of simulated days with faults at every boundary; SEED=N lives through one of them again.
soak: setup
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED))
	@$(if $(SEED),,$(BIN)/python -m tests.fuzz)
	@$(if $(SEED),,$(BIN)/python -m tests.fleet_soak)

# Ten minutes of a real fleet in network namespaces: links cut, processes killed (as root; iproute2, iptables).
soak-fleet: setup
	@$(BIN)/python -m tests.fleet_soak $(if $(SEED),--seed $(SEED))

# A hundred thousand damaged inputs to every reader, and thousands of messages to a real socket.
soak-fuzz: setup
	@$(BIN)/python -m tests.fuzz $(if $(SEED),--seed $(SEED))

# dpkg-deb alone makes it: no debhelper, and no network beyond what pip needs.
deb: setup
	@$(BIN)/python debian/build.py

# The paper's experiment and measured traces again, for docs/evidence.md: about half an hour.
evidence: setup
	$(BIN)/python -m bench.evidence

# A real Slurm beside topod in the same states (as root; slurm-wlm, munge): writes its table into docs/evidence.md.
peers: setup
	$(BIN)/python -m bench.peers --write

docs: setup
	$(BIN)/python docs/generate_states.py
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_messages.py
	$(BIN)/python docs/generate_metrics.py
	$(BIN)/python docs/generate_dashboard.py

$(VENV)/.site-ready: pyproject.toml | setup
	$(BIN)/pip install -q --group site
	touch $@

# Whatever Sphinx warns of, such as a link that leads nowhere or a page that is in no list, is an error.
site: $(VENV)/.site-ready
	$(BIN)/sphinx-build -q -n -W --keep-going -d build/site-cache docs build/site
	@echo "build/site/index.html"

# Asks the hosts of other sites, so no test does.
links: $(VENV)/.site-ready
	$(BIN)/sphinx-build -q -b linkcheck -d build/links-cache docs build/links

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
