# `make demo` runs the whole chain on a small world; `make test` runs the tests.
PYTHON ?= python3
PY := .venv/bin/python
DEMO := runs/demo
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-slow lint

.venv/.installed: requirements.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --requirement requirements.txt
	touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt
	$(PY) -m pip install --quiet --requirement requirements-dev.txt
	touch $@

test: .venv/.installed-dev
	$(PY) -m pytest

test-slow: .venv/.installed-dev
	$(PY) -m pytest -m slow

lint: .venv/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy musicinfuser datamodules lightning_modules callbacks train.py evaluate.py

# The chain on the small world. Every command can be repeated: it starts from what exists.
MUSIC ?= $(DEMO)/world/music/mBR0.wav
# Beats of the generated music are known; those of any other file are tracked.
BEATS = $(if $(filter $(DEMO)/world/music/%,$(MUSIC)),--music_beats truth --beats_folder \
	$(DEMO)/world/truth,--music_beats tracked)
PROMPT ?= a professional dancer dancing in a studio with a white backdrop

demo: .venv/.installed
	@echo "1/6  media: dancers and music made by a generator, and Mochi's parts at a small size"
	$(PY) -m datamodules.small_world $(DEMO)/world
	$(PY) -m musicinfuser.networks.small_parts $(DEMO)/small-mochi
	@echo "2/6  encode"
	$(PY) train.py predict --config configs/encode.yaml --config configs/small_encode.yaml
	@echo "3/6  train ZICA and LoRA on the frozen backbone, with samples on the way"
	$(PY) train.py fit --config configs/base.yaml --config configs/small.yaml
	@echo "4/6  generate a video for $(MUSIC)"
	$(PY) train.py predict --config configs/base.yaml --config configs/small.yaml \
		"--data.init_args.generation.music=['$(MUSIC)']" \
		"--data.init_args.generation.prompts=['$(PROMPT)']"
	@echo "5/6  score it"
	$(PY) evaluate.py score $(DEMO)/small/videos --output $(DEMO)/report/metrics.json \
		$(BEATS)
	$(PY) evaluate.py table $(DEMO)/report/metrics.json --output $(DEMO)/report/table.md
	@echo "6/6  look"
	$(PY) evaluate.py sheet $(DEMO)/small/videos --output $(DEMO)/report/contact_sheet.png $(BEATS)
	@echo
	@echo "Made:"
	@ls $(DEMO)/small/videos/*.mp4 | sed 's/^/  video with sound   /'
	@ls $(DEMO)/small/samples/*/*.mp4 | sed 's/^/  sample in training /'
	@echo "  contact sheet      $(DEMO)/report/contact_sheet.png"
	@echo "  table              $(DEMO)/report/table.md (values: $(DEMO)/report/metrics.json)"
	@echo "  curves             $(PY) -m tensorboard.main --logdir $(DEMO)/small/logs"
	@echo "The weights of this demo are random: its videos are noise, its score is chance."
