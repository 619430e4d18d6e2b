# On a fresh clone: `make demo` or `make test`. Each builds .venv on first use, and again only when
# pyproject.toml or constraints.txt change. Another interpreter: make PYTHON=python3.12 demo

PYTHON ?= python3
BIN := .venv/bin/python
# Stamps, written last, so that an interrupted installation does not count as one: what running needs, and on top of it
# what developing needs.
VENV := .venv/.complete
DEV := .venv/.dev
INSTALLING := .venv/.installing

DEMO := examples/multi_keyframe_demo/config.yaml
# More arguments for pytest: make test ARGS="tests/flow -x"
ARGS ?=
# Two workers, each with one torch thread and its own copy of the session's runs. A file stays on one worker.
PYTEST := $(BIN) -m pytest -n 2 --dist loadscope --durations=20
FRESH := .venv/fresh
LATEX := outputs/paper

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Idle threads sleep instead of spinning: on a busy machine this halves the processor time of a run.
export OMP_WAIT_POLICY ?= passive

.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-all chaos fuzz lint format docs showcase experiments figures paper arxiv constraints clean

help:
	@echo 'make demo         bundled keyframes in, outputs/demo/output_final.mp4 out'
	@echo 'make test         the tests, but for the slow ones'
	@echo 'make test-slow    the slow ones: kills, ranks, browser, training, long proofs'
	@echo 'make test-all     both, and chaos'
	@echo 'make chaos        every call of every job to the file system made to fail, half an hour'
	@echo 'make fuzz         5,000 mutated files at every door, a minute at most, two doors at a time'
	@echo 'make lint         ruff (rules and format), pyright, and whether what is installed is pinned'
	@echo 'make format       let ruff rewrite the files'
	@echo 'make docs         the documentation as a site: outputs/site/index.html'
	@echo 'make showcase     the moving pictures of the README, from two examples'
	@echo 'make experiments  every recorded result anew, then the figures of the paper; hours, goes on where it stopped'
	@echo 'make figures      figures, tables and numbers of paper/, from the recorded results'
	@echo 'make paper        the same, and paper/main.pdf; needs pdflatex'
	@echo 'make arxiv        the sources of the paper in one archive: outputs/paper/wanedit-arxiv.tar.gz'
	@echo 'make constraints  renew constraints.txt from the newest versions that pyproject.toml allows'
	@echo 'make clean        remove outputs and caches; .venv stays'

demo: $(VENV)
	$(BIN) -m wanedit generate --config $(DEMO)
	@echo 'video:         outputs/demo/output_final.mp4'
	@echo 'contact sheet: outputs/demo/contact_sheet.png'
	@echo 'joins:         outputs/demo/junctions.png'
	@echo 'segments:      outputs/demo/segments/'

test: $(DEV)
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(DEV)
	$(PYTEST) -m "slow and not chaos" $(ARGS)

chaos: $(DEV)
	$(PYTEST) -m chaos $(ARGS)

test-all: $(DEV)
	$(PYTEST) $(ARGS)

fuzz: $(DEV)
	$(BIN) benchmarks/fuzz.py --jobs 2 --inputs 5000 $(ARGS)

lint: $(DEV)
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m pyright
	$(BIN) scripts/supply.py

format: $(DEV)
	$(BIN) -m ruff check --fix .
	$(BIN) -m ruff format .

# Strict: a link to a page or picture that is not there ends it.
docs: $(DEV)
	.venv/bin/zensical build --strict
	@echo 'site: outputs/site/index.html'

showcase: $(VENV)
	$(BIN) scripts/showcase.py

# What other weights made is made anew.
experiments: $(VENV)
	for grid in experiments/*/grid.yaml; do $(BIN) -m wanedit ablate $${grid%/grid.yaml} --jobs 2 || exit; done
	$(BIN) experiments/01_keyframe_propagation/run.py all --jobs 2
	$(BIN) experiments/01_keyframe_propagation/table.py
	$(BIN) experiments/09_joins/limit.py 64
	$(BIN) -m paper.make.real_frames
	$(BIN) -m paper.make.joins
	$(BIN) -m paper.make.hard_edits
	$(BIN) -m paper.make

figures: $(VENV)
	$(BIN) -m paper.make

# Twice, for references; without a date, so that two builds are the same bytes.
paper: figures
	@command -v pdflatex >/dev/null || { echo 'make paper needs pdflatex; on Debian: apt-get install' \
	  '--no-install-recommends texlive-latex-base texlive-latex-recommended texlive-fonts-recommended' >&2; exit 1; }
	@mkdir -p $(LATEX)
	@for pass in 1 2; do (cd paper && SOURCE_DATE_EPOCH=0 FORCE_SOURCE_DATE=1 pdflatex -interaction=batchmode \
	  -halt-on-error -output-directory ../$(LATEX) main.tex) || { tail -n 30 $(LATEX)/main.log >&2; exit 1; }; done
	cp $(LATEX)/main.pdf paper/main.pdf

arxiv: figures
	$(BIN) -m paper.make.arxiv $(LATEX)/wanedit-arxiv.tar.gz

$(VENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'wanedit needs Python 3.11 or newer; $(PYTHON) is' "$$($(PYTHON) --version 2>&1)." \
	    'Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 1; }
	@if test -e $(INSTALLING); then rm -rf .venv; fi
	$(PYTHON) -m venv .venv
	@rm -f $@ && touch $(INSTALLING)
	$(BIN) -m pip install --constraint constraints.txt 'setuptools>=77'
	$(BIN) -m pip install --constraint constraints.txt --no-build-isolation --editable .
	@rm -f $(INSTALLING) && touch $@

$(DEV): $(VENV)
	$(BIN) -m pip install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@

constraints:
	rm -rf $(FRESH)
	$(PYTHON) -m venv $(FRESH)
	$(FRESH)/bin/python -m pip install --editable '.[dev]'
	sed -n '/^#/p' constraints.txt > $(FRESH)/constraints.txt
	$(FRESH)/bin/python -m pip freeze --all --exclude pip --exclude-editable >> $(FRESH)/constraints.txt
	mv $(FRESH)/constraints.txt constraints.txt
	rm -rf $(FRESH)

clean:
	rm -rf outputs build .pytest_cache .ruff_cache .hypothesis
	find wanedit tiny tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
