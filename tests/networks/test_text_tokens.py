"""What is cut from a text is named: how much, and after which words."""

import warnings

import pytest
import torch
from transformers import ByT5Tokenizer

from musicinfuser.networks.encoders import Encoders, EncodersSpec
from musicinfuser.networks.text_tokens import cut_note

LONG = "a dancer in a very long sentence " + 40 * "and so on "


def test_numbers_and_place() -> None:
    tokenizer = ByT5Tokenizer()
    # A token per byte, and one for the end.
    assert cut_note("a" * 255, tokenizer) is None
    assert cut_note("a" * 256, tokenizer).endswith("the last 1 are cut, after '" + 30 * "a" + "'.")
    said = cut_note("one two three four", tokenizer, max_tokens=9)
    assert said == (
        "'one two three four' has 19 tokens, of which the text encoder reads 9: the last 10 are "
        "cut, after 'one two '."
    )


def test_encoding_goes_on_and_says_it_once_per_caption(small_parts) -> None:
    encoders = Encoders(EncodersSpec(mochi=str(small_parts), dtype="float32"))
    cpu = torch.device("cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # A prompt and a negative prompt, as `predict` reads them, twice.
        for _ in range(2):
            features = encoders.encode_captions([LONG, "short", LONG[1:]], device=cpu)
    said = [str(w.message) for w in caught if "are cut" in str(w.message)]
    assert len(said) == 2 and said[0] != said[1]
    number = len(LONG) + 1
    assert (
        f"has {number} tokens, of which the text encoder reads 256: the last {number - 256}"
        in (said[0])
    )
    assert [len(f) for f in features] == [256, 6, 256]
    with pytest.warns(UserWarning, match="are cut"):
        assert len(list(encoders.iterate_captions([LONG], device=cpu))) == 1
