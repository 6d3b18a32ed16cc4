# `make demo` runs the whole chain on a small world; `make test` runs the tests.
PYTHON ?= python3
PY := .venv/bin/python
DEMO := runs/demo
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo example-report test test-slow lint bench gpu-check

.venv/.installed: requirements.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --requirement requirements.txt
	touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt
	$(PY) -m pip install --quiet --requirement requirements-dev.txt
	touch $@

# Two processes; tests of one file stay together, since they share what it sets up.
test: .venv/.installed-dev
	$(PY) -m pytest --numprocesses 2 --dist loadfile

test-slow: .venv/.installed-dev
	$(PY) -m pytest -m slow

lint: .venv/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy musicinfuser dance_eval small_world sweeps preflight datamodules \
		lightning_modules callbacks benchmarks integrations train.py evaluate.py

# What can be measured without a GPU (under five minutes of CPU time), and the page of all results.
bench: .venv/.installed
	$(PY) -m benchmarks.bench

# What needs a GPU, in one call of ten minutes: one table, and one file that README's is made of.
# benchmarks/gpu_queue.md says what it needs.
# `make gpu-check PY=python3 PACKAGES=packages.tar.xz` takes the machine's own Python.
gpu-check:
	$(PY) -m benchmarks.gpu_check --out runs/gpu_check $(if $(PACKAGES),--packages $(PACKAGES))

# The chain on the small world. A step is done again if its options, a program or config, or the
# step before it changed, or if files that it made came or went; it starts from what exists.
WORLD := $(DEMO)/world
CLIPS := $(DEMO)/clips
VIDEOS := $(DEMO)/videos
REPORT := $(DEMO)/report
DONE := $(DEMO)/done
# Twelve sampling steps are as good here as twenty (configs/sweeps/small_table1.yaml has the figures).
SMALL := --config configs/base.yaml --config configs/small_world/small.yaml --model.init_args.sampling.num_steps 12
PREDICT := $(PY) train.py predict $(SMALL)
REQUESTS := --data.init_args.generation.requests
TRUTH := --music_beats truth --beats_folder $(CLIPS)/truth
SYSTEMS := $(CLIPS)/ground_truth $(VIDEOS)/base $(VIDEOS)/adapted
# What assets/report shows; `make example-report SCORED='A B --beats_folder C'` takes other folders.
SCORED ?= $(SYSTEMS) $(TRUTH)
EXAMPLE := runs/example_report
# More options of the adaptation, such as FIT='--trainer.max_steps 400'.
FIT ?=
# Videos of each half of the small world, and clips to judge by.
NUM_VIDEOS ?= 40
NUM_CLIPS ?= 8
# With MUSIC=song.mp3: what is danced, from which second of the song, and for how long.
PROMPT ?= a professional dancer dancing in a studio with a white backdrop
START ?= 0
DURATION ?= 5

ADAPT := --data.init_args.max_validation_clips 16 --trainer.max_steps 130 \
	--sample_generation.every_n_steps 65 $(FIT)
PROGRAMS := train.py evaluate.py requirements.txt $(shell find configs assets/small-adapter \
	musicinfuser dance_eval small_world datamodules lightning_modules callbacks \
	-name __pycache__ -prune -o -type f -print)
# Folders below $(1), which are newer than the step's file if a file came or went; all if one is gone.
made = $(foreach folder,$(1),$(or $(shell find $(folder) -type d 2>/dev/null),again))
# A word for the shell, whatever is in it.
quoted = '$(subst ','\'',$(1))'
# A file that changes when the text does, written where the goal is the demo.
text = $(if $(filter-out demo,$(MAKECMDGOALS)),,$(shell mkdir -p $(DONE); \
	printf '%s\n' $(call quoted,$(2)) | cmp -s - $(1) || printf '%s\n' $(call quoted,$(2)) >$(1))$(1))

.PHONY: again
$(DONE)/media: .venv/.installed $(PROGRAMS) \
		$(call text,$(DONE)/sizes,$(NUM_VIDEOS) $(NUM_CLIPS)) $(call made,$(WORLD) $(CLIPS))
	@echo "1/5  media: dancers and music made by a generator; $(NUM_CLIPS) clips of held-out music to judge by"
	$(PY) -m small_world.generator $(WORLD) --num-aist $(NUM_VIDEOS) --held-out 12 \
		--num-youtube $(NUM_VIDEOS) --num-workers 2
	$(PY) -m small_world.generator.test_set $(WORLD) $(CLIPS) --num-clips $(NUM_CLIPS)
	@mkdir -p $(@D) && touch $@

$(DONE)/encoded: $(DONE)/media $(call made,$(DEMO)/cache)
	@echo "2/5  encode: videos to latents, music and captions to features"
	$(PY) train.py predict --config configs/encode.yaml --config configs/small_world/encode.yaml
	@mkdir -p $(@D) && touch $@

$(DONE)/adapted: $(DONE)/encoded $(call text,$(DONE)/training,$(ADAPT)) \
		$(call made,$(DEMO)/adapted/checkpoints)
	@echo "3/5  adapt: ZICA and LoRA learn to follow the music, the base stays frozen"
	$(PY) train.py fit $(SMALL) $(ADAPT)
	@mkdir -p $(@D) && touch $@

$(DONE)/videos: $(DONE)/adapted $(call made,$(VIDEOS)/base $(VIDEOS)/adapted)
	@echo "4/5  generate for held-out tracks: the base, the adapted model, and it with other music"
	$(PREDICT) --ckpt_path null $(REQUESTS) $(CLIPS)/own.csv \
		--video_writer.system base --video_writer.output_dir $(VIDEOS)/base
	$(PREDICT) $(REQUESTS) '[$(CLIPS)/own.csv,$(CLIPS)/other.csv]' \
		--video_writer.system adapted --video_writer.output_dir $(VIDEOS)/adapted
	@mkdir -p $(@D) && touch $@

# As they were typed, for the shell: names and prompts may hold quotes and dollars.
FILE := $(call quoted,$(value MUSIC))
WORDS := $(call quoted,$(value PROMPT))
LIST := $(PY) -c 'import json, sys; print(json.dumps(sys.argv[1:], ensure_ascii=False))'
SONG := $(if $(MUSIC),$(shell ls -l --time-style=+%s $(FILE)) $(value PROMPT) $(START) $(DURATION))
$(DONE)/song: .venv/.installed $(PROGRAMS) $(if $(MUSIC),$(call text,$(DONE)/prompt,$(SONG))) \
		$(call made,$(VIDEOS)/your_song)
	@printf '     your song, %s, with the adapter that ships; %s\n' $(FILE) \
		"how well it follows recorded songs: docs/small_world.md"
	$(PREDICT) --ckpt_path null --model.init_args.init_adapter assets/small-adapter \
		--model.init_args.sampling.music_guidance_scale 3 \
		"--data.init_args.generation.music=$$($(LIST) $(FILE))" \
		"--data.init_args.generation.prompts=$$($(LIST) $(WORDS))" \
		--data.init_args.generation.track_offset_seconds $(START) \
		--data.init_args.generation.num_seconds $(DURATION) \
		--video_writer.system "your song" --video_writer.output_dir $(VIDEOS)/your_song
	@mkdir -p $(@D) && touch $@

$(DONE)/report: $(DONE)/videos $(call made,$(REPORT))
	@echo "5/5  score, pictures, and videos of all systems beside each other, with sound"
	$(PY) evaluate.py report $(SYSTEMS) $(TRUTH) --metrics configs/small_world/metrics.yaml \
		--output $(REPORT)
	@mkdir -p $(@D) && touch $@

demo: $(if $(MUSIC),$(DONE)/song) $(DONE)/report
	@echo "Made:"
	@ls $(REPORT)/side_by_side/*.mp4 | sed 's/^/  beside each other  /'
	@ls $(VIDEOS)/your_song/*.mp4 2>/dev/null | sed 's/^/  your song          /' || true
	@ls $(DEMO)/adapted/samples/*/*.mp4 2>/dev/null | sed 's/^/  sample in training /' || true
	@echo "  what was encoded   $(DEMO)/cache/report/index.html"
	@echo "  contact sheet      $(REPORT)/contact_sheet.png"
	@echo "  page of it all     $(REPORT)/index.html"
	@echo "  table              $(REPORT)/table.md (values: $(REPORT)/metrics.json)"
	@echo
	@echo "Try next:"
	@echo "  make demo MUSIC=song.mp3 PROMPT='a woman in a red shirt and black trousers dancing House'"
	@echo "  $(PY) -m tensorboard.main --logdir $(DEMO)/adapted/logs"
	@echo "  $(PREDICT) $(REQUESTS) $(CLIPS)/own.csv --model.init_args.sampling.music_guidance_scale 3 \\"
	@echo "    --video_writer.output_dir $(VIDEOS)/guided   # follows the music more closely"

# The committed example of a report, from the clips of `make demo` or any others; below 4.5 MB.
example-report: .venv/.installed
	$(PY) evaluate.py report $(SCORED) --metrics configs/small_world/report_metrics.yaml --max_clips 3 \
		--title "Four systems on the small world" --output $(EXAMPLE)
	mkdir -p assets/report
	for file in index.html metrics.json table.md; do cp $(EXAMPLE)/$$file assets/report || exit 1; done
	test $$(du -k -s assets/report | cut -f1) -lt 5000
