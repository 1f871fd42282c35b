# Two commands do all: `make demo` and `make test`. Both make their own environment (.venv) first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
MAPS ?=
GPU_PYTHON ?= python3
GPU_OPTIONS ?=
SOAK_OPTIONS ?=
EFFECT_OPTIONS ?=
STAMPS ?= bench-out/stamps/usr/share/tuxpaint/stamps
TRY_FOLDER ?= /var/tmp/labelstore-image
TRY_OPTIONS ?=
LOCK_OPTIONS ?=

.PHONY: help demo test lint types test-slow test-gpu examples soak bench bench-scale bench-encodings bench-quality effect effect-full bench-gpu bench-gpu-pooling bench-import bench-remote bench-shards bench-view families fuzz lock-image try-image clean

help:
	@echo "make demo       annotate sample photographs with a real ImageNet model, and look at one"
	@echo "make test       lint, types and all tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-gpu   the tests that need a CUDA device"
	@echo "make examples   train on the sample photographs: PyTorch (fork, spawn), Lightning, timm, JAX"
	@echo "make soak       kill runs and damage stores, at random: nothing may be lost (most of an hour; SOAK_OPTIONS=--short: 2 minutes)"
	@echo "make bench      the benchmarks (MAPS=FILE.npz: label maps to size stores with)"
	@echo "make bench-scale  the reader on stores of ImageNet's size (3 GB)"
	@echo "make bench-gpu  annotating on a CUDA device, with torch and timm of GPU_PYTHON alone; bench-gpu-pooling: reading there"
	@echo "make bench-encodings  bytes a map against distance to the annotator, for every encoding"
	@echo "make bench-view  the viewer on a store of ImageNet's size: searches, memory, soft labels a second (3 GB)"
	@echo "make fuzz       the reader, and the commands, on 10,000 hostile stores each, the viewer under 10,000 hostile requests (20 minutes)"
	@echo "make families   networks of timm and torchvision as annotators: the tables of docs/annotators.md (10 minutes)"
	@echo "make bench-import  100,000 files of one map into a store, and into another encoding (1.3 GB of disk; MAPS=FILE.npz)"
	@echo "make bench-remote  a store behind a slow line; bench-shards: 100,000 shards through Dask (15 minutes, 3 GB in memory)"
	@echo "make bench-quality  map size, encoding and precision: bytes, and distances to the annotator"
	@echo "make effect     does training on label maps give better networks? Small networks, 20 minutes; effect-full: tuning, ablations, a second data set (hours)"
	@echo "make lock-image  the exact versions and hashes of what is in the image, anew (LOCK_OPTIONS='--torch-index INDEX': torch for the CPU too)"
	@echo "make try-image  the Dockerfile's steps and compose.yaml's services without Docker, in a clean Debian"
	@echo "make clean      remove environment, demo and build output"

# One environment; an extra is installed again when setup.cfg changes.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, found " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(VENV)/.demo: $(VENV)/.created setup.cfg pyproject.toml
	@echo "Installing labelstore and what it needs into $(VENV) (minutes: torch is large) ..."
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

# dask-kubernetes without what it needs: of it the tests read the schemas of the operator's resources, and nothing runs.
$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps 'dask-kubernetes>=2025.1'
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@

$(VENV)/.examples: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --editable '.[lightning,jax]'
	@touch $@

demo: $(VENV)/.demo
	@mkdir -p $(DEMO)
	cd $(DEMO) && $(abspath $(BIN))/labelstore annotate
	cd $(DEMO) && $(abspath $(BIN))/labelstore inspect chelsea.png --box 0,0,0.5,1 --save chelsea-map.png
	@echo "The picture is $(DEMO)/chelsea-map.png; the store is $(DEMO)/labels.zarr."

test: lint types $(VENV)/.test
	$(BIN)/python -m pytest -m "not gpu and not slow"

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the mapping of three folders to one package: it checks an installed copy.
types: $(VENV)/.test
	rm -rf build
	$(BIN)/python -m pip install --quiet --no-deps --target build/types .
	cd build/types && $(abspath $(BIN))/mypy --config-file $(abspath pyproject.toml) --cache-dir $(abspath .mypy_cache) -p labelstore

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/.test
	$(BIN)/python -m pytest -m gpu

examples: $(VENV)/.examples
	@mkdir -p $(DEMO)
	cd $(DEMO) && $(abspath $(BIN))/labelstore annotate
	cd $(DEMO) && $(abspath $(BIN))/python $(abspath examples/train.py) --start fork
	cd $(DEMO) && $(abspath $(BIN))/python $(abspath examples/train.py) --start spawn
	cd $(DEMO) && $(abspath $(BIN))/python $(abspath examples/train_lightning.py)
	cd $(DEMO) && $(abspath $(BIN))/python $(abspath examples/train_timm.py)
	cd $(DEMO) && $(abspath $(BIN))/python $(abspath examples/train_jax.py)

# Of docs/reliability.md; what is found is printed, and makes the exit code 1.
soak: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/soak.py --json bench-out/soak.json $(SOAK_OPTIONS)

bench: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/import_time.py --json bench-out/import_time.json
	$(BIN)/python benchmarks/store_size.py $(if $(MAPS),--maps $(MAPS)) --json bench-out/store_size.json
	$(BIN)/python benchmarks/annotate_throughput.py --json bench-out/annotate_throughput.json
	$(BIN)/python benchmarks/reader_speed.py $(if $(MAPS),--maps $(MAPS)) --json bench-out/reader_speed.json
	$(BIN)/python benchmarks/loader_epoch.py $(if $(MAPS),--maps $(MAPS)) --json bench-out/loader_epoch.json

# 3 GB of disk.
bench-scale: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/big_store.py bench-out/big.zarr $(if $(MAPS),--maps $(MAPS))
	$(BIN)/python benchmarks/reader_scale.py --store bench-out/big.zarr --json bench-out/reader_scale.json
	$(BIN)/python benchmarks/big_store.py bench-out/big-spectral.zarr --encoding spectral
	$(BIN)/python benchmarks/reader_scale.py --store bench-out/big-spectral.zarr --json bench-out/reader_scale_spectral.json

# Encodings against each other: DENSE='NAME=FILE.npz NAME=FILE.npz*2.5', or maps made here.
bench-encodings: $(VENV)/.bench
	@mkdir -p bench-out
	$(BIN)/python benchmarks/frontier.py $(foreach set,$(DENSE),--dense '$(set)') --json bench-out/frontier.json --plot bench-out/encodings.png
	$(BIN)/python benchmarks/encoding_variants.py $(foreach set,$(DENSE),--dense '$(set)') --json bench-out/encoding_variants.json
	$(BIN)/python benchmarks/spectral_speed.py --json bench-out/spectral_speed.json
	$(BIN)/python benchmarks/encoder_cost.py --json bench-out/encoder_cost.json

# Map size, encoding and precision: bytes, and distances to the annotator. The table of docs/annotating.md.
bench-quality: $(VENV)/.bench
	@mkdir -p bench-out
	$(BIN)/python benchmarks/annotate_quality.py --json bench-out/annotate_quality.json

# docs/results.md. What is done is kept in bench-out/effect: the same command goes on from there.
effect: $(VENV)/.bench
	@mkdir -p bench-out
	$(BIN)/python benchmarks/relabel_effect.py --json bench-out/effect.json --plot bench-out/effect.png $(EFFECT_OPTIONS)

effect-full: $(VENV)/.bench $(STAMPS)
	$(BIN)/python benchmarks/relabel_effect.py --full --data digits --data stamps --stamps $(STAMPS) --json bench-out/effect-full.json --plot bench-out/effect-full.png $(EFFECT_OPTIONS)

# Tux Paint's photographs (160 MB): Debian's package, unpacked and not installed. Elsewhere: STAMPS=FOLDER.
bench-out/stamps/usr/share/tuxpaint/stamps:
	@mkdir -p bench-out/stamps
	cd bench-out/stamps && apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb .
	@touch $@

# Needs torch, torchvision and timm in $(GPU_PYTHON), nothing else: the package is a copy of the three folders.
bench-gpu:
	@mkdir -p bench-out
	rm -rf build/site && mkdir -p build/site && cp -r labelstore build/site/ && cp -r pipelines cli build/site/labelstore/
	PYTHONPATH=$(abspath build/site) $(GPU_PYTHON) benchmarks/gpu_annotate.py --json bench-out/gpu_annotate.json $(GPU_OPTIONS)

# 1.3 GB of disk.
bench-import: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/importing.py $(if $(MAPS),--maps $(MAPS)) --json bench-out/importing.json

bench-remote: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/remote_reading.py --json bench-out/remote_reading.json

bench-shards: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/many_shards.py --folder /dev/shm --json bench-out/many_shards.json

bench-view: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/big_store.py bench-out/big.zarr $(if $(MAPS),--maps $(MAPS))
	$(BIN)/python benchmarks/view_scale.py --store bench-out/big.zarr --json bench-out/view_scale.json

# Of maps in a file, or made here by a model that the environment has.
bench-gpu-pooling: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/gpu_pooling.py $(if $(MAPS),--maps $(MAPS)) --json bench-out/gpu_pooling.json

fuzz: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/fuzz_reader.py --json bench-out/fuzz.json
	$(BIN)/python benchmarks/fuzz_commands.py --json bench-out/fuzz_commands.json
	$(BIN)/python benchmarks/fuzz_view.py

# Also what the slow tests run, there without writing the page.
families: $(VENV)/.test
	@mkdir -p bench-out
	$(BIN)/python benchmarks/annotator_families.py --json bench-out/families.json --update docs/annotators.md

# The exact versions in the image: run it with the image's Python.
lock-image: $(VENV)/.test
	$(BIN)/python docker/lock.py $(LOCK_OPTIONS)

# As root, on Debian; needs debootstrap, busybox and 25 GB. TRY_OPTIONS='--device cuda', and what pip needs: see --help.
try-image: $(VENV)/.test
	$(BIN)/python docker/trial/try_image.py $(TRY_FOLDER) $(TRY_OPTIONS)

clean:
	rm -rf $(VENV) $(DEMO) build bench-out .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
