# Every target sets itself up; the environment is made again only when what it is made from changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Workers take whole files, as the tests of one compile the same programs.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
# The newest JAX needs a newer Python than the oldest that is promised.
PYTHON_NEXT ?= $(shell ./.ci/newer-python)
VENV_NEXT := .venv-next
READY_NEXT := $(VENV_NEXT)/.ready
VENV_DIST := .venv-dist

.PHONY: setup demo test test-slow test-all test-next test-cluster test-gpu bench bench-full bench-targets bench-compilation bench-serving bench-sweep bench-spurious bench-optima bench-honesty bench-acceleration bench-ridges bench-reports bench-cluster bench-sharded bench-gpu bench-kernels bench-peers lint structure docs dist clean

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	touch $@

demo: $(READY)
	$(BIN)/python examples/tiles.py --out demo

test: $(READY)
	$(PYTEST) -m "not slow"

# What is slow by nature: pages that are run, processes that are killed, memory, scikit-learn's own tests.
test-slow: $(READY)
	$(PYTEST) -m "slow and not cluster"

test-all: $(READY)
	$(PYTEST)

# What the newest JAX may change, in an environment of its own, which needs Python 3.12 or newer: kernels of a CPU and of a
# GPU. With the plugin, those of a GPU are compiled without one, and executed by an interpreter.
test-next: $(READY_NEXT)
	$(VENV_NEXT)/bin/python -m pytest -n 2 --dist loadfile -m "not slow" tests/engine/test_mosaic.py tests/engine/test_fused.py \
	  tests/engine/test_slots.py tests/em/test_fused.py tests/em/test_run.py tests/em/test_vectors.py tests/numerics tests/test_ptx.py

# Two nodes on this machine, of which one is removed. A test that hangs is ended.
test-cluster: $(READY)
	timeout 300 $(BIN)/python -m pytest tests/test_distributed.py -m cluster

# What matters on a GPU, for a machine that has one and whose own Python has JAX for it, jaxtyping and pytest with xdist.
# No other plugin is wanted: warnings are errors.
test-gpu:
	XLA_PYTHON_CLIENT_MEM_FRACTION=.1 PYTHONPATH=. $(PYTHON) -m pytest -n 8 -p no:benchmark -p no:cacheprovider -m "not slow" \
	  tests/engine tests/test_published.py tests/test_fit.py tests/test_bad_input.py tests/em tests/numerics

$(READY_NEXT): pyproject.toml
	@test -n "$(PYTHON_NEXT)" || { echo "No Python of 3.12 or newer was found; name one as PYTHON_NEXT."; exit 1; }
	$(PYTHON_NEXT) -m venv $(VENV_NEXT)
	$(VENV_NEXT)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[all]' jax \
	  jax-cuda13-plugin jax-cuda13-pjrt absl-py
	touch $@

bench: $(READY)
	$(BIN)/python -m benchmarks.run --quick

bench-full: $(READY)
	$(BIN)/python -m benchmarks.run --full

bench-targets: $(READY)
	$(BIN)/python -m benchmarks.targets

bench-compilation: $(READY)
	$(BIN)/python -m benchmarks.compilation

bench-serving: $(READY)
	$(BIN)/python -m benchmarks.serving

bench-sweep: $(READY)
	$(BIN)/python -m benchmarks.sweeps

bench-spurious: $(READY)
	$(BIN)/python -m benchmarks.spurious

bench-optima: $(READY)
	$(BIN)/python -m benchmarks.optima

bench-honesty: $(READY)
	$(BIN)/python -m benchmarks.honesty

bench-acceleration: $(READY)
	$(BIN)/python -m benchmarks.acceleration --picture docs/acceleration.png

bench-ridges: $(READY)
	$(BIN)/python -m benchmarks.ridges

bench-reports: $(READY)
	$(BIN)/python -m benchmarks.reports

# On this machine alone, and what follows for larger clusters.
bench-cluster: $(READY)
	$(BIN)/python -m benchmarks.cluster

bench-sharded: $(READY)
	$(BIN)/python -m benchmarks.sharded

# For a machine with a GPU, whose own Python has JAX for it.
bench-gpu:
	PYTHONPATH=. $(PYTHON) -m benchmarks.gpu

bench-kernels:
	PYTHONPATH=. $(PYTHON) -m benchmarks.kernels

# Peers have an environment of their own, since some pin an old NumPy.
bench-peers: .venv-peers/.ready
	PYTHONPATH=. .venv-peers/bin/python -m benchmarks.run --peers --only steps-2d steps-1d steps-8d \
	  --systems "jaxgmm float32" "NumPy float64" gmmx gmm-gpu pomegranate --out benchmarks/results/peers.json

.venv-peers/.ready: benchmarks/requirements-peers.txt
	$(PYTHON) -m venv .venv-peers
	-.venv-peers/bin/python -m pip install -q -r $<
	-.venv-peers/bin/python -m pip install -q --no-deps gmm-gpu==0.2.8
	touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/codespell

# Rooms of the package, their modules, and the rooms that each imports.
structure: $(READY)
	$(BIN)/python tests/test_architecture.py

# Warnings are errors: a link or a name that is not there ends the build.
docs: $(READY)
	$(BIN)/python -m mkdocs build --strict

# Wheel and source archive, and a fit with the wheel where nothing but what it needs is installed.
dist: $(READY)
	rm -rf dist $(VENV_DIST)
	$(BIN)/python -m build --quiet
	$(PYTHON) -m venv $(VENV_DIST)
	$(VENV_DIST)/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd $(VENV_DIST) && bin/python -c "import jaxgmm, numpy; print(jaxgmm.__file__, jaxgmm.fit(numpy.arange(9.0)[:, None], 1).mixture.means)"

clean:
	rm -rf $(VENV) $(VENV_NEXT) $(VENV_DIST) demo dist site
