# make demo   train, evaluate and report on real pictures, words and voices
# make test   lint, format, types and every test
#
#   make demo SOURCE=DIR   uses an installed stamp collection instead of fetching the package
#   make demo CONFIG=configs/vision/mae_stamps.py
#
# make taichu   the model that also draws and speaks, its tokenisers and its judge: hours

VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/multimodal/taichu_stamps_tiny.py
SOURCE ?=
RUN = runs/$(basename $(notdir $(CONFIG)))

.PHONY: demo taichu test lint format clean

demo: $(VENV)/installed
	@$(BIN)/python launch/prepare.py --data_dir data $(if $(SOURCE),--source "$(SOURCE)")
	@$(BIN)/python launch/train.py --config $(CONFIG) --run_dir $(RUN) $(if $(SOURCE),--config.data.source="$(SOURCE)")
	@$(BIN)/python launch/evaluate.py --run $(RUN)

taichu: $(VENV)/installed
	@$(BIN)/python launch/prepare.py --data_dir data $(if $(SOURCE),--source "$(SOURCE)")
	@for config in vision/vqvae speech/mel_codec multimodal/judge multimodal/taichu; do \
		$(BIN)/python launch/train.py --config configs/$${config}_stamps.py $(if $(SOURCE),--config.data.source="$(SOURCE)") || exit; \
	done
	@$(BIN)/python launch/evaluate.py --run runs/taichu_stamps

test: lint
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup

lint: $(VENV)/tested
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || (echo "run: make format"; exit 1)
	@$(BIN)/mypy --cache-dir .cache/mypy

format: $(VENV)/tested
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

$(VENV)/installed: requirements.txt setup.cfg launch/setup.sh
	@sh launch/setup.sh $(VENV)

# What only tests need, PyTorch among it: other packages' models are the reference of tests/parity.
$(VENV)/tested: $(VENV)/installed requirements-test.txt
	@echo "test requirements: 1.1 GB more ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement requirements-test.txt
	@touch $@

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache *.egg-info
