import pickle
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
from transformers import CLIPModel, ViTModel

from dance_eval.metrics import image_encoders
from dance_eval.metrics.clip_score import ClipScore
from dance_eval.metrics.features import FrameFeatures
from dance_eval.metrics.image_encoders import (
    ClipEncoder,
    ClipFrameFeatures,
    DinoEncoder,
    EncoderError,
    dino_positions,
)
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.pretrained_sources import MissingWeightsError
from tests import slow_resize
from tests.small_encoders import (
    DINO_SIDE,
    PATCH,
    WIDTH,
    noise,
    write_small_dino,
)

FRAMES = noise(7, 36, 61)


def test_clip_vectors_are_those_of_the_model_on_slow_pixels(clip_folder):
    found = ClipEncoder(clip_folder).embed_images(FRAMES, antialias=False)
    pixels = np.stack([slow_resize.vbench_clip(frame.numpy(), 32) for frame in FRAMES])
    model = CLIPModel.from_pretrained(clip_folder)
    with torch.no_grad():
        tokens = model.vision_model(pixel_values=torch.from_numpy(pixels).float())
        expected = tokens.pooler_output @ model.visual_projection.weight.T
    assert found.shape == (7, WIDTH) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert expected.std(dim=0).min() > 0.01


def test_dino_vectors_are_those_of_its_own_code(dino_folder):
    """Class tokens, with position embeddings stretched by patches plus a tenth."""
    found = DinoEncoder(dino_folder).embed_images(FRAMES)
    model = ViTModel.from_pretrained(dino_folder, add_pooling_layer=False).eval()
    pixels = torch.from_numpy(
        np.stack([slow_resize.vbench_dino(frame.numpy(), DINO_SIDE) for frame in FRAMES])
    ).float()
    rows, columns = pixels.shape[2] // PATCH, pixels.shape[3] // PATCH
    assert (rows, columns) == (3, 5)
    positions = model.embeddings.position_embeddings.detach()[0].double().numpy()
    square = positions[1:].reshape(3, 3, -1)
    stretched = slow_resize.resize_line(square, rows, slow_resize.cubic_kernel, step=3 / 3.1)
    stretched = slow_resize.resize_line(
        stretched.swapaxes(0, 1), columns, slow_resize.cubic_kernel, step=3 / 5.1
    ).swapaxes(0, 1)
    positions = np.concatenate([positions[:1], stretched.reshape(rows * columns, -1)])
    with torch.no_grad():
        patches = model.embeddings.patch_embeddings.projection(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([model.embeddings.cls_token.expand(7, -1, -1), patches], dim=1)
        tokens = tokens + torch.from_numpy(positions).float()
        for layer in model.layers:
            tokens = layer(tokens)
        expected = model.layernorm(tokens)[:, 0]
        theirs = model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (found - theirs).abs().max() > 0.01


def test_pictures_of_the_trained_size_take_the_trained_positions():
    positions = torch.randn(1, 10, 4, generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros(2, 10, 4)
    assert torch.equal(dino_positions(positions, tokens, 24, 24, patch_size=8), positions)
    # As many patches, in another shape.
    wide = dino_positions(positions, tokens, 8, 72, patch_size=8)
    assert wide.shape == positions.shape and not torch.equal(wide, positions)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_no_number(clip_folder, dino_folder, batch_size):
    few = {"batch_size": batch_size}
    for antialias in (True, False):
        torch.testing.assert_close(
            ClipEncoder(clip_folder, **few).embed_images(FRAMES, antialias=antialias),
            ClipEncoder(clip_folder).embed_images(FRAMES, antialias=antialias),
            rtol=1e-5,
            atol=1e-5,
        )
    torch.testing.assert_close(
        DinoEncoder(dino_folder, **few).embed_images(FRAMES),
        DinoEncoder(dino_folder).embed_images(FRAMES),
        rtol=1e-5,
        atol=1e-5,
    )


def test_half_precision_is_close_and_not_equal(clip_folder):
    whole = ClipEncoder(clip_folder).embed_images(FRAMES, antialias=False)
    half = ClipEncoder(clip_folder, dtype="bfloat16").embed_images(FRAMES, antialias=False)
    assert half.dtype == torch.float32
    difference = (half - whole).norm() / whole.norm()
    assert 1e-4 < difference < 0.1


def test_sentences_end_at_the_models_length(clip_folder):
    encoder = ClipEncoder(clip_folder)
    long = "a photo depicts " + "abc " * 20
    vectors, cut = encoder.embed_texts(["a dance", long, long + "and more", ""])
    assert cut == [False, True, True, False]
    assert vectors.shape == (4, WIDTH)
    torch.testing.assert_close(vectors[1], vectors[2])
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-2)
    # Padding must not be read.
    alone, _ = encoder.embed_texts(["a dance"])
    torch.testing.assert_close(alone[0], vectors[0], rtol=1e-4, atol=1e-5)


def test_weights_are_loaded_when_first_used_and_once(clip_folder, monkeypatch):
    loads = []
    load = image_encoders.load_pretrained

    def counted(part, *arguments, **options):
        loads.append(part.__name__)
        return load(part, *arguments, **options)

    monkeypatch.setattr(image_encoders, "load_pretrained", counted)
    image_encoders._loaded.cache_clear()
    first, second = ClipEncoder(clip_folder), ClipEncoder(clip_folder, batch_size=2)
    assert "CLIPModel" not in loads
    for _ in range(2):
        first.embed_images(FRAMES, antialias=False)
        second.embed_images(FRAMES, antialias=True)
    assert loads.count("CLIPModel") == 1
    copy = pickle.loads(pickle.dumps(first))
    assert copy == first and len(pickle.dumps(first)) < 20_000


def test_changed_weights_are_loaded_again(tmp_path):
    folder = write_small_dino(tmp_path / "dino")
    before = DinoEncoder(folder)
    vectors = before.embed_images(FRAMES)
    fingerprint = before.fingerprint()
    assert fingerprint == fingerprint_folder(folder)
    write_small_dino(tmp_path / "dino", seed=1)
    after = DinoEncoder(folder)
    assert after.fingerprint() != fingerprint
    assert not torch.allclose(after.embed_images(FRAMES), vectors, atol=1e-2)
    shutil.rmtree(folder)
    with pytest.raises(EncoderError, match=str(folder)):
        before.fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; at least 1"),
        ({"dtype": "float64"}, "dtype is 'float64'; choose one of float32, bfloat16, float16"),
        ({"device": "gpu"}, "device is 'gpu', which torch does not know"),
    ],
)
def test_settings_out_of_range_are_refused(clip_folder, options, message):
    with pytest.raises(EncoderError, match=message):
        ClipEncoder(clip_folder, **options)


def test_a_gpu_that_is_not_there_is_refused(clip_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EncoderError, match="torch sees no GPU; set it to auto"):
        ClipEncoder(clip_folder, device="cuda")


def test_another_kind_of_model_is_refused(clip_folder, dino_folder):
    with pytest.raises(EncoderError, match="holds a 'clip' model, not a 'vit' model"):
        DinoEncoder(clip_folder)
    with pytest.raises(EncoderError, match="holds a 'vit' model, not a 'clip' model"):
        ClipEncoder(dino_folder)
    with pytest.raises(MissingWeightsError, match="/no/such/place does not exist"):
        ClipEncoder("/no/such/place")


def test_a_hub_id_comes_from_the_cache_at_its_commit(clip_folder, tmp_path, monkeypatch):
    repository = tmp_path / "models--someone--small-clip"
    shutil.copytree(clip_folder, repository / "snapshots" / "abc123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    encoder = ClipEncoder("someone/small-clip")
    assert encoder.fingerprint() == "someone/small-clip@abc123"
    from_hub = encoder.embed_images(FRAMES, antialias=False)
    assert torch.equal(from_hub, ClipEncoder(clip_folder).embed_images(FRAMES, antialias=False))
    assert encoder.embed_texts(["a dance"])[1] == [False]
    with pytest.raises(MissingWeightsError, match="hf download someone/other") as error:
        ClipEncoder("someone/other")
    assert "\n" not in str(error.value)


def test_frame_features_are_clips_own(clip_folder):
    features = ClipFrameFeatures(ClipEncoder(clip_folder, device="cpu"))
    assert features.in_workers
    assert isinstance(features, FrameFeatures) and clip_folder in features.name
    assert features.fingerprints() == {"weights": fingerprint_folder(clip_folder)}
    found = features.features(FRAMES)
    assert found.shape == (7, WIDTH) and found.dtype == torch.float32
    expected = ClipEncoder(clip_folder).embed_images(FRAMES, antialias=True)
    assert torch.equal(found, expected)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_vectors(clip_folder, dino_folder):
    assert not ClipScore(encoder=ClipEncoder(clip_folder, device="cuda")).in_workers
    torch.testing.assert_close(
        ClipEncoder(clip_folder, device="cuda").embed_images(FRAMES, antialias=False),
        ClipEncoder(clip_folder, device="cpu").embed_images(FRAMES, antialias=False),
        rtol=1e-3,
        atol=1e-3,
    )
    torch.testing.assert_close(
        DinoEncoder(dino_folder, device="cuda").embed_images(FRAMES),
        DinoEncoder(dino_folder, device="cpu").embed_images(FRAMES),
        rtol=1e-3,
        atol=1e-3,
    )
