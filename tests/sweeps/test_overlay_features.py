"""Rows with other audio features: encoded with the overlay for it, then trained on for a step."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

from musicinfuser.media.latents import read_clip, read_headers
from preflight.cache import check_encoders
from small_world.parts.random_parts import write_small_parts
from tests.conftest import AIST_FILES, ROOT, YOUTUBE_FILES, encode_arguments
from tests.sweeps.one_step import one_step
from tests.sweeps.parsing import ABLATIONS, ParsingCLI
from train import main

NUM_LAYERS = 6
# Overlay -> the one for its cache, and channels of its features.
ROWS = {
    "audio_layer_6": ("encode/audio_layer_6", 96),
    "audio_hubert": ("encode/audio_hubert", 96),
    "audio_log_mel": ("encode/audio_log_mel", 80),
    "audio_layer_mixture": ("encode/audio_layer_mixture", 8 * 96),
    "audio_rhythm": ("encode/audio_rhythm", 35),
    "small/audio_rhythm": ("encode/audio_rhythm", 35),
    "small/audio_rhythm_and_wav2vec": ("encode/audio_rhythm_and_wav2vec", 131),
    "small/audio_rhythm_average": ("encode/audio_rhythm", 35),
    "small/audio_layer_1": (None, 96),
    "small/audio_hidden_states": (None, 96),
    "small/audio_log_mel": ("encode/audio_log_mel", 80),
    "small/audio_log_mel_played": ("encode/audio_log_mel", 80),
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts whose wav2vec 2.0 has a layer 6, and a HuBERT beside them."""
    folder = tmp_path_factory.mktemp("encoders") / "parts"
    write_small_parts(folder, num_layers=1)
    old = Wav2Vec2Config.from_pretrained(folder / "audio_encoder").to_dict()
    names = (
        *("hidden_size", "num_attention_heads", "intermediate_size", "conv_dim", "conv_kernel"),
        *("conv_stride", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups"),
    )
    shape = {name: old[name] for name in names} | {"num_hidden_layers": NUM_LAYERS + 1}
    extractor = folder / "audio_encoder" / "preprocessor_config.json"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Wav2Vec2Model(Wav2Vec2Config(**shape)).save_pretrained(folder / "audio_encoder")
        HubertModel(HubertConfig(**shape)).save_pretrained(folder.parent / "hubert")
    shutil.copy(extractor, folder.parent / "hubert")
    return folder


@pytest.fixture(scope="module")
def two_videos(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two_videos")
    # The first is of no held-out music, which nothing is trained on.
    for source, name in (("aist", AIST_FILES[0]), ("youtube", YOUTUBE_FILES[0])):
        (root / source).mkdir()
        for file in (media / source).glob(f"{name}.*"):
            shutil.copy(file, root / source)
    return root


@pytest.fixture(scope="module")
def features(parts: Path, two_videos: Path, tmp_path_factory: pytest.TempPathFactory):  # noqa: ANN201
    """``features(*arguments)``: a cache of two videos."""
    made: dict[tuple[str, ...], Path] = {}

    def encode(*arguments: str) -> Path:
        if arguments not in made:
            cache = tmp_path_factory.mktemp("features") / "cache"
            where = f"--data.init_args.cache_dir={cache}"
            main([*encode_arguments(parts, two_videos, cache), *arguments, where])
            made[arguments] = cache
        return made[arguments]

    return encode


WITH_LIBROSA = {row for row in ROWS if "rhythm" in row}


@pytest.mark.parametrize(
    "row",
    # librosa compiles itself on first use
    [pytest.param(r, marks=pytest.mark.slow) if r in WITH_LIBROSA else r for r in ROWS],
)
def test_a_step_on_other_features(parts: Path, features, row: str) -> None:  # noqa: ANN001
    encoding, width = ROWS[row]
    arguments = [f"--config={ABLATIONS}/{encoding}.yaml"] if encoding else []
    if row == "small/audio_layer_1":  # as the sweep's file says
        arguments = ["--model.init_args.encoders.audio_layer=1"]
    places = []
    if row == "audio_hubert":
        places = [f"--model.init_args.encoders.audio={parts.parent / 'hubert'}"]
    usual, cache = features(), features(*arguments, *places)
    now, before = ([read_clip(h.path)["audio"] for h in read_headers(c)] for c in (cache, usual))
    assert {tensor.shape[1] for tensor in now} == {width}
    are_usual = row == "small/audio_hidden_states"  # what base.yaml takes
    if width == 96:
        assert all(torch.equal(a, b) is are_usual for a, b in zip(now, before, strict=True))
    parser = ParsingCLI([f"--config={ROOT}/configs/base.yaml"]).parser
    overlay = f"--config={ABLATIONS}/{row}.yaml"
    where = f"--data.init_args.cache_dir={cache}"
    less = ("--model.init_args.layers=[0]", "--data.init_args.validation_source=null")
    places_too = [*places, where]
    if row == "audio_layer_mixture":  # the encoder here is smaller than the overlay's
        places_too.append(f"--model.init_args.audio_width={width}")
    trained = one_step(parser, parts, cache, (*less, overlay, *places_too))
    assert any(name.startswith("zica.") for name in trained.moved)
    mixture = "audio_projector.layer_logits.0"
    assert (mixture in trained.start) == (row == "audio_layer_mixture")
    # What was trained takes audio features as the cache holds them, and the usual cache is refused.
    encoders = trained.module.encoders
    check_encoders(cache, read_headers(cache)[0].recipe, encoders)
    if are_usual:
        return
    with pytest.raises(ValueError, match="encode"):
        check_encoders(usual, read_headers(usual)[0].recipe, encoders)
