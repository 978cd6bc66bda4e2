# What CI runs is what a newcomer runs: `make demo`, `make test`, `make lint`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test lint format bench bench-gpu weights lock clean

setup: $(STAMP)

$(STAMP): requirements.lock constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11), "ossicle is set up with Python 3.11"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# Trains on the clips that the repository carries, labels some of them, prints where the report lies.
demo: $(STAMP)
	$(BIN)/ossicle train examples/clips -o demo/sounds.ossicle
	$(BIN)/ossicle predict demo/sounds.ossicle examples/clips -o demo/labels.csv

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check src tests bench examples
	$(BIN)/ruff format --check src tests bench examples
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix src tests bench examples
	$(BIN)/ruff format src tests bench examples

# The tables in docs/results; needs the measuring data (OSSICLE_SHARED, default ../shared). Some
# hours: the layer study's grid, two pre-training runs, and the studies that train networks.
bench: $(STAMP)
	$(BIN)/python bench/line.py
	$(BIN)/ossicle study layers $${OSSICLE_SHARED:-../shared}/data/choi2017/gtzan_genre.npz -o docs/results/layers_gtzan_genre.json
	$(BIN)/python bench/choi2017.py
	$(BIN)/python bench/layers.py
	$(BIN)/python bench/preprocessing.py
	$(BIN)/python bench/training_size.py
	$(BIN)/python bench/transfer_matrix.py
	$(BIN)/python bench/advise.py
	$(BIN)/python bench/snore.py
	$(BIN)/python bench/networks.py
	$(BIN)/python bench/byol_step.py
	$(BIN)/python bench/open_audio.py build/open
	$(BIN)/python bench/pretrain.py build/open
	$(BIN)/python bench/benchmark.py
	$(BIN)/python bench/scale.py
	$(BIN)/python bench/suite_time.py
	$(BIN)/python bench/novelty.py
	$(BIN)/python bench/calibration.py
	$(BIN)/python bench/soundscapes.py
	$(BIN)/python bench/deep_clustering.py
	$(BIN)/python bench/separation.py
	$(BIN)/python bench/denoise.py
	$(BIN)/python bench/detect.py

# The same at full width on a GPU; says so where there is none.
bench-gpu: $(STAMP)
	$(BIN)/python bench/gpu.py

# The weights that the package carries, and their card: fetches the audio, keeps out of it what is
# measured on (OSSICLE_SHARED, as above), and trains, on a GPU where there is one. Hours; what is
# done is kept, and a stopped run goes on.
weights: $(STAMP)
	$(BIN)/python bench/weights.py

# Exact versions of all that is installed, from the ranges in pyproject.toml. tinysoundfont renders to
# arrays without pyaudio, which it asks for and which builds nowhere without PortAudio's headers.
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet -c constraints.txt 'setuptools>=77' torch==2.13.0 '.[dev]'
	build/lock/bin/python -m pip install --quiet --no-deps tinysoundfont==0.3.7
	(echo "# Exact versions, made by 'make lock'."; build/lock/bin/python -m pip freeze --all --exclude ossicle --exclude pip) > requirements.lock

clean:
	rm -rf $(VENV) demo build
