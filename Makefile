# Two commands do everything on a fresh machine with Python 3.11+, make and git:
#   make demo    run the main job on phantom data into results/report.html
#   make test    all checks and tests
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PATH := $(BIN):$(PATH)

.PHONY: demo test fuzz environment test-environment lint format reference rulegraph site screenshots speed-page clean

demo: environment
	snakemake --profile profiles/local

# Five workers for two cores: they often wait, for clusters, a browser, a lease, or the one job of a
# study that all others follow.
test: test-environment lint
	pytest --numprocesses 5 --dist loadfile --no-loadscope-reorder

environment: $(VENV)/.installed
test-environment: $(VENV)/.installed-test

$(VENV)/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "voxelsoup needs Python 3.11 or newer; call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	pip install --quiet --disable-pip-version-check -r requirements.txt
	pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.txt
	pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

lint: test-environment
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	mypy
	lint-imports --no-cache
	snakemake --lint
	voxelsoup reference --check

format: test-environment
	ruff check --fix .
	ruff format .
	snakefmt Snakefile rules

# Two minutes of coverage-guided fuzzing for each reader; findings are written to the working directory.
fuzz: test-environment
	for target in nii nii.gz mha nrrd decathlon nnunet monai table guess guess-table; do \
	  python tests/data/fuzz/readers.py $$target -max_total_time=120 -rss_limit_mb=2500 || exit 1; done

reference: environment
	voxelsoup reference

# Without the arrows that follow from others (tred): with all of them the picture cannot be read.
rulegraph: environment
	snakemake --rulegraph --quiet all | tred | dot -Tsvg -Nheight=0.3 -Nmargin=0.12,0.04 \
	  -Granksep=0.22 -Gnodesep=0.2 -Epenwidth=1.5 -Earrowsize=0.7 > docs/rulegraph.svg

# The documents as a searchable site that needs no network: build/site/index.html.
site: test-environment
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# Pictures in the documents, of the demo study.
screenshots: test-environment demo
	python docs/screenshots.py results docs/images

# The results of the benchmarks (bench/results) as a page with pictures.
speed-page: environment
	python docs/speed.py bench/results docs

clean:
	rm -rf results .snakemake build
