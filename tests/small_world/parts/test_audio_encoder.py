import math
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2Model,
)

from musicinfuser.networks.encoders import Encoders, EncodersSpec
from small_world.data.music_dataset import MusicBatch
from small_world.parts.audio_encoder import (
    AudioEncoderModule,
    cycle_distance,
    on_circle,
)
from tests.audio_encoders import write_audio_encoder
from tests.conftest import ROOT
from tests.small_world.parts.part_training import audio_encoder_arguments, train_part

CONFIG = f"{ROOT}/configs/small_world/parts/audio_encoder/config.json"
OPTIMIZER = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)


def make_module(**options) -> AudioEncoderModule:
    settings = {"config": CONFIG, "export_dir": "nowhere"} | options
    module = AudioEncoderModule(OPTIMIZER, **settings)
    module.configure_model()
    return module


def test_trains_and_exports_what_the_encoders_load(tmp_path: Path) -> None:
    cli = train_part("audio_encoder", tmp_path, *audio_encoder_arguments())
    errors = [cli.trainer.callback_metrics[f"val/{n}_error"] for n in ("beat", "two_beats", "bar")]
    assert all(0 < error < 0.5 for error in errors)
    spec = EncodersSpec(audio=f"{tmp_path}/export", audio_subfolder="audio_encoder")
    waveform = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    features = Encoders(spec).encode_audio(waveform, device=torch.device("cpu"))
    module = cli.model.eval()
    extractor = SeamlessM4TFeatureExtractor()
    spectra = extractor(waveform[0, :15_920].numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = module.encoder(spectra.input_features).last_hidden_state
        points = module.points(spectra.input_features)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    whole = Wav2Vec2BertForAudioFrameClassification.from_pretrained(
        tmp_path / "export" / "audio_encoder"
    ).eval()
    with torch.no_grad():
        assert torch.equal(whole(spectra.input_features).logits, points.flatten(2))
    again = make_module(config=None, pretrained=f"{tmp_path}/export")
    assert torch.equal(again.head.weight, module.head.weight)


def test_positions_become_points_and_distances() -> None:
    meter = torch.tensor([0.0, 0.25, 0.9])
    points = on_circle(meter)
    for turn, (x, y) in zip(meter.tolist(), points.tolist(), strict=True):
        assert (x, y) == pytest.approx(
            (math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)), abs=1e-6
        )
    assert cycle_distance(points, meter).max() < 1e-6
    shifted = torch.tensor([0.3, 0.75, 0.1])
    expected = [0.3, 0.5, 0.2]
    assert cycle_distance(3 * points, shifted).tolist() == pytest.approx(expected, abs=1e-6)


def test_loss_is_the_squared_distance_on_the_circles() -> None:
    module = make_module()
    module.log = lambda *_, **__: None
    batch = MusicBatch((0, 1), torch.randn(2, 8000), torch.rand(2, 24, 3), torch.randn(2, 24, 160))
    batch.meter[0, :, 2] = torch.nan  # the first piece has no bar of four
    loss = module.training_step(batch, 0)
    points = module.points(batch.features)
    total = 0.0
    for b in range(2):
        for t in range(24):
            for c in range(3 if b else 2):
                angle = 2 * math.pi * batch.meter[b, t, c].item()
                x, y = points[b, t, c].tolist()
                total += (x - math.cos(angle)) ** 2 + (y - math.sin(angle)) ** 2
    assert loss.item() == pytest.approx(total / (24 * 5 * 2), rel=1e-4)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())
    # Masking noise is the one parameter that only spectral augmentation would use.
    unused = {n for n, p in module.named_parameters() if p.grad is None}
    assert unused <= {"encoder.masked_spec_embed"}


def test_weights_follow_the_seed(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = make_module(seed=3).state_dict()
    torch.manual_seed(2)
    again, other = make_module(seed=3), make_module(seed=4)
    assert all(torch.equal(one[k], v) for k, v in again.state_dict().items())
    assert any(not torch.equal(one[k], v) for k, v in other.state_dict().items())
    other.encoder.save_pretrained(tmp_path / "audio_encoder")
    warm = make_module(config=None, pretrained=str(tmp_path)).encoder
    assert all(torch.equal(other.encoder.state_dict()[k], v) for k, v in warm.state_dict().items())


def test_the_config_names_the_kind(tmp_path: Path) -> None:
    write_audio_encoder(tmp_path)
    module = make_module(config=str(tmp_path / "config.json"))
    assert isinstance(module.encoder, Wav2Vec2Model)
    assert module.points(torch.randn(1, 8000)).shape == (1, 24, 3, 2)


def test_exactly_one_source() -> None:
    with pytest.raises(ValueError, match="exactly one of `config` and `pretrained`"):
        make_module(config=None)


def test_the_head_alone_learns(tmp_path: Path) -> None:
    before = make_module()
    before.export_dir = str(tmp_path / "start")
    before.export()
    arguments = [a for a in audio_encoder_arguments() if "init_args.config=" not in a]
    module = train_part(
        "audio_encoder", tmp_path, *arguments, "--model.init_args.config=null",
        f"--model.init_args.pretrained={tmp_path}/start", "--model.init_args.train_encoder=false",
    ).model  # fmt: skip
    expected = before.encoder.state_dict()
    assert all(torch.equal(expected[n], t) for n, t in module.encoder.state_dict().items())
    assert not torch.equal(module.head.weight, before.head.weight)
