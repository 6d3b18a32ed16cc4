import json

import huggingface_hub
import pytest
from diffusers import AutoencoderKLMochi, FlowMatchEulerDiscreteScheduler
from transformers import AutoTokenizer, Wav2Vec2FeatureExtractor

from musicinfuser.pretrained_sources import MissingWeightsError, load_pretrained


@pytest.fixture
def scheduler_folder(tmp_path):
    FlowMatchEulerDiscreteScheduler(shift=2.5).save_pretrained(tmp_path / "mochi" / "scheduler")
    return tmp_path / "mochi"


def test_loads_from_a_folder_and_its_subfolder(scheduler_folder):
    part = load_pretrained(FlowMatchEulerDiscreteScheduler, str(scheduler_folder), "scheduler")
    assert part.config.shift == 2.5
    inner = str(scheduler_folder / "scheduler")
    for subfolder in (None, ""):
        part = load_pretrained(FlowMatchEulerDiscreteScheduler, inner, subfolder)
        assert part.config.shift == 2.5


def test_keyword_arguments_are_passed_on(scheduler_folder):
    part = load_pretrained(
        FlowMatchEulerDiscreteScheduler, str(scheduler_folder), "scheduler", shift=7.0
    )
    assert part.config.shift == 7.0


def test_a_relative_folder_with_one_slash_is_found(scheduler_folder, monkeypatch):
    monkeypatch.chdir(scheduler_folder.parents[0])
    assert (
        load_pretrained(FlowMatchEulerDiscreteScheduler, "mochi", "scheduler").config.shift == 2.5
    )
    inner = load_pretrained(FlowMatchEulerDiscreteScheduler, "mochi/scheduler", None)
    assert inner.config.shift == 2.5


@pytest.mark.parametrize("source", ["/no/such/place", "./weights/mochi", "weights", "a/b/c"])
def test_a_missing_folder_is_named(source):
    with pytest.raises(MissingWeightsError, match="does not exist.*; give a folder") as error:
        load_pretrained(AutoencoderKLMochi, source, "vae")
    assert f"{source.removeprefix('./')}/vae" in str(error.value)
    assert "AutoencoderKLMochi" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_hub_id_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingWeightsError) as error:
        load_pretrained(AutoencoderKLMochi, "someone/mochi-not-here", "vae")
    message = str(error.value)
    assert "AutoencoderKLMochi: nothing could be loaded from someone/mochi-not-here/vae" in message
    assert "`hf download someone/mochi-not-here --local-dir mochi-not-here`" in message
    assert "\n" not in message


def test_a_folder_without_the_part_says_so_and_offers_no_download(scheduler_folder):
    with pytest.raises(MissingWeightsError) as error:
        load_pretrained(AutoencoderKLMochi, str(scheduler_folder), "scheduler")
    assert f"nothing could be loaded from {scheduler_folder}/scheduler" in str(error.value)
    assert "hf download" not in str(error.value)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(MissingWeightsError, match=f"nothing could be loaded from {tmp_path}"):
        load_pretrained(Wav2Vec2FeatureExtractor, str(tmp_path), None)


def test_an_error_without_words_is_still_reported(tmp_path):
    class Silent:
        @classmethod
        def from_pretrained(cls, source, *, subfolder):
            raise OSError

    with pytest.raises(MissingWeightsError, match=r"Silent: nothing could be .*\(OSError\)"):
        load_pretrained(Silent, str(tmp_path), None)


def test_a_sentencepiece_vocabulary_is_enough_for_t5s_tokenizer(tmp_path):
    """Mochi's published folder holds ``spiece.model`` and no ``tokenizer.json``."""
    import sentencepiece

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("a dancer moves to the music\nthe music plays and a dancer turns\n" * 20)
    folder = tmp_path / "mochi" / "tokenizer"
    folder.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(tmp_path / "tiny"), vocab_size=24,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tiny.model").rename(folder / "spiece.model")
    with pytest.raises(
        MissingWeightsError, match="AutoTokenizer: nothing could be .*\\)$"
    ) as error:
        load_pretrained(AutoTokenizer, str(folder.parent), "tokenizer")
    assert "\n" in str(error.value.__cause__) and "\n" not in str(error.value)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}))
    tokenizer = load_pretrained(AutoTokenizer, str(folder.parent), "tokenizer")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    for caption in ("a dancer turns", "the music plays"):
        ids = tokenizer(caption).input_ids
        assert ids == [*reference.encode(caption), 1]
        assert tokenizer.decode(ids, skip_special_tokens=True) == caption
    cut = tokenizer("a dancer turns", max_length=5, truncation=True, return_tensors="pt")
    assert cut.input_ids.tolist() == [[*reference.encode("a dancer turns")[:4], 1]]
