from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch.utilities import move_data_to_device

from datamodules.aist import AIST_TEMPLATES
from small_world.data.caption_dataset import (
    NOT_NAMED,
    CaptionDataModule,
    CaptionDataset,
    named_classes,
    studio_scene,
    wild_scene,
)
from small_world.generator.wardrobe import backdrop_words
from small_world.generator.wild import draw_wild
from tests.conftest import ROOT


def make_data(**options) -> CaptionDataModule:
    data = CaptionDataModule(
        **{"batch_size": 3, "seed": 5, "num_validation_captions": 7, **options}
    )
    data.setup("fit")
    data.trainer = SimpleNamespace(
        max_steps=5, accumulate_grad_batches=1, global_rank=0, world_size=1, global_step=2
    )
    return data


def test_captions_say_what_their_labels_say() -> None:
    words = {"woman": "a woman", "man": "a man", "two women": "two women", "two men": "two men"}
    for index in range(60):
        caption, named = wild_scene(index, seed=3)
        assert caption == draw_wild(index, 3).caption
        assert f"{named['top']} shirt" in caption and f"{named['bottom']} trousers" in caption
        assert words.get(named["dancers"], "a man and a woman") in caption
        colours = named["first_colour"], named.get("second_colour", "")
        assert backdrop_words(named["place"], *colours) in caption


def test_studio_captions_are_those_of_the_table() -> None:
    scenes = [studio_scene(index, seed=3) for index in range(200)]
    for caption, named in scenes:
        assert "top" not in named and named["place"] == "studio"
        num_dancers = caption.count("professional")
        assert num_dancers == (3 if named["situation"] == "GR" else 1)
        assert (named["dancers"] == "three") == (num_dancers == 3)
        if named["dancers"] == "woman":
            assert "female" in caption
    classes = named_classes()
    for name in ("genre", "situation", "camera"):
        assert {named[name] for _, named in scenes} == set(classes[name])
    starts = {template.split("{")[0] for template in AIST_TEMPLATES}
    assert all(any(caption.startswith(start) for start in starts) for caption, _ in scenes)


def test_halves_in_turn_and_labels_by_class() -> None:
    scenes, classes = CaptionDataset(10, seed=1), named_classes()
    for index in range(10):
        caption, labels = scenes[index]
        expected, named = (studio_scene, wild_scene)[index % 2](index // 2, seed=1)
        assert caption == expected
        for label, (name, options) in zip(labels.tolist(), classes.items(), strict=True):
            assert label == (options.index(named[name]) if name in named else NOT_NAMED)


def test_batches_start_where_the_run_is() -> None:
    data = make_data()
    batches = list(data.train_dataloader())
    assert [len(b.captions) for b in batches] == [3, 3, 3]
    assert batches[0].captions == tuple(data.training[i][0] for i in (6, 7, 8))
    assert torch.equal(batches[1].named[2], data.training[11][1])
    assert move_data_to_device(batches[0], torch.device("meta")).named.device.type == "meta"


def test_validation_has_captions_of_its_own() -> None:
    data = make_data(num_validation_captions=40)
    held_out = {caption for batch in data.val_dataloader() for caption in batch.captions[1::2]}
    assert sum(len(batch.captions) for batch in data.val_dataloader()) == 40
    assert held_out.isdisjoint(data.training[i][0] for i in range(1, 81, 2))


def test_the_config_knows_the_classes() -> None:
    config = yaml.safe_load(
        (ROOT / "configs" / "small_world" / "parts" / "text_encoder.yaml").read_text()
    )
    expected = {name: len(classes) for name, classes in named_classes().items()}
    written = config["model"]["init_args"]["num_classes"]
    assert list(written.items()) == list(expected.items())


def test_serves_fit_only() -> None:
    with pytest.raises(ValueError, match="serves fit only, not validate"):
        CaptionDataModule(batch_size=1, seed=0).setup("validate")
