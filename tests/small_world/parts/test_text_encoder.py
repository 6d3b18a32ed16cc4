from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoTokenizer, T5EncoderModel

from small_world.data.caption_dataset import CaptionBatch
from small_world.parts.text_encoder import TextEncoderModule, caption_features
from tests.conftest import ROOT
from tests.small_world.parts.part_training import text_encoder_arguments, train_part

CONFIG = f"{ROOT}/configs/small_world/parts/text_encoder.json"
OPTIMIZER = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)


def make_module(**options) -> TextEncoderModule:
    settings = {"config": CONFIG, "export_dir": "nowhere", "num_classes": {"a": 3, "b": 2}}
    module = TextEncoderModule(OPTIMIZER, **{**settings, **options})
    module.configure_model()
    return module


def test_trains_and_exports_what_transformers_loads(tmp_path: Path) -> None:
    cli = train_part("text_encoder", tmp_path, *text_encoder_arguments())
    read = [cli.trainer.callback_metrics[f"val/{name}_read"] for name in ("genre", "place")]
    assert all(0 <= share <= 1 for share in read)
    encoder = T5EncoderModel.from_pretrained(tmp_path / "export" / "text_encoder")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export" / "tokenizer")
    trained = cli.model.text_encoder.state_dict()
    assert all(torch.equal(weight, trained[n]) for n, weight in encoder.state_dict().items())
    tokens = tokenizer(["a dancer"], return_tensors="pt").input_ids
    assert torch.equal(tokens, cli.model.tokenizer(["a dancer"], return_tensors="pt").input_ids)


def test_loss_recomputed_caption_by_caption() -> None:
    module = make_module()
    logged = {}
    module.log = lambda name, value, **_: logged.update({name: value})
    captions, named = ("red", "a green wall", "x"), torch.tensor([[0, 1], [2, -100], [-100, -100]])
    loss = module.training_step(CaptionBatch(captions, named), 0)
    total = 0.0
    for caption, labels in zip(captions, named.tolist(), strict=True):
        ids = module.tokenizer([caption], return_tensors="pt").input_ids
        features = module.text_encoder(ids).last_hidden_state[0]
        weights = module.queries(features).softmax(dim=0)
        for attribute, label in enumerate(labels):
            if label >= 0:
                pooled = (weights[:, attribute, None] * features).sum(dim=0)
                logits = module.heads[attribute](pooled)
                total += F.cross_entropy(logits, torch.tensor(label)).item()
    assert loss.item() == pytest.approx(total / 3, rel=1e-4)
    assert logged["train/loss"] == loss
    loss.backward()
    assert {n for n, p in module.named_parameters() if p.grad is None} == set()


def test_shares_count_only_what_is_named() -> None:
    module = make_module()
    shares: dict[str, float] = {}
    module.log = lambda name, value, **_: shares.update({name: float(value)})
    captions = ("red", "green", "blue", "black")
    right = [logits.argmax(dim=1) for logits in module.logits(captions)]
    named = torch.stack([right[0], 1 - right[1]], dim=1)
    named[0, 0], named[1:, 1] = -100, -100
    named[1, 0] = (named[1, 0] + 1) % 3
    module.validation_step(CaptionBatch(captions, named), 0)
    module.on_validation_epoch_end()
    assert shares == pytest.approx({"val/a_read": 2 / 3, "val/b_read": 0.0})


def test_dropped_captions_have_no_tokens() -> None:
    module = make_module()

    def features(*captions: str) -> tuple[torch.Tensor, tuple[int, ...]]:
        return caption_features(
            captions, tokenizer=module.tokenizer, text_encoder=module.text_encoder, max_tokens=16
        )

    together, lengths = features("a dancer", "", "a much longer caption")
    assert lengths == (9, 0, 16)
    alone, _ = features("a dancer")
    torch.testing.assert_close(together[0, :9], alone[0], rtol=1e-4, atol=1e-5)


def test_weights_follow_the_seed(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one = make_module(seed=3).state_dict()
    torch.manual_seed(2)
    again, other = make_module(seed=3), make_module(seed=4)
    assert all(torch.equal(one[name], weight) for name, weight in again.state_dict().items())
    other.text_encoder.save_pretrained(tmp_path / "text_encoder")
    warm = make_module(config=None, pretrained=str(tmp_path)).text_encoder.state_dict()
    for name, weight in other.text_encoder.state_dict().items():
        assert torch.equal(weight, warm[name])
        assert not torch.equal(weight, one[f"text_encoder.{name}"]) or "layer_norm" in name


def test_exactly_one_source() -> None:
    with pytest.raises(ValueError, match="exactly one of `config` and `pretrained`"):
        make_module(config=None)
