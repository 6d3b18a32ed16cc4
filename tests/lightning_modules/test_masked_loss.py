"""Errors where the dancers are count more: from files of joints to the weights of a run."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datamodules.cached_clips import clips_without_mask
from lightning_modules.masked_loss import pixel_weights
from lightning_modules.settings import MaskSpec
from musicinfuser.errors import UserError
from musicinfuser.media.latents import CacheError, read_headers
from musicinfuser.media.masks import mask_path, read_mask, write_mask
from tests.conftest import cli_arguments, encode_arguments
from tests.dance_data import batches
from train import main

OPTION = "--model.init_args.objective.mask"


@pytest.fixture(scope="module")
def masked_cache(
    small_cache: Path, small_parts: Path, media: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The session's cache with masks but for one video: the left half of every frame."""
    folder = tmp_path_factory.mktemp("masks")
    cache = Path(shutil.copytree(small_cache, folder / "cache"))
    joints = [[[0.0, 0.0], [0.5, 1.0]]] * 40
    for video in sorted(media.rglob("*.mp4"))[:-1]:
        (folder / f"{video.stem}.joints.json").write_text(json.dumps({"joints": joints, "fps": 30}))
    options = f"--data.init_args.masks={{folder: {folder}, margin: 0}}"
    main([*encode_arguments(small_parts, media, cache), options])
    return cache


def test_masks_are_added_to_a_cache_whose_clips_stay(
    masked_cache: Path, small_cache: Path, small_parts: Path, media: Path, capsys
) -> None:
    headers = read_headers(masked_cache)
    lacking = clips_without_mask(masked_cache, headers)
    assert len(lacking) == 1
    for header in headers:
        before = small_cache / header.path.relative_to(masked_cache)
        assert header.path.read_bytes() == before.read_bytes()
        if header not in lacking:
            mask = read_mask(mask_path(masked_cache, header.source, header.clip_id))
            assert mask.shape == (2, 4, 4)
            assert 0.2 < mask.mean() < 0.8
            assert set(mask[:, :, 0].flatten().tolist()) == {1.0} and mask[:, :, 3].sum() == 0
    masks = f"{{folder: {masked_cache.parent}, margin: 0}}"
    again = [*encode_arguments(small_parts, media, masked_cache), f"--data.init_args.masks={masks}"]
    main(again)
    printed = capsys.readouterr().out
    assert f"made 0 masks, {len(headers) - 1} were there already." in printed
    assert "1 clips have no mask: their videos, e.g. " in printed
    report = main(["check", *again[1:]]).report
    assert f"masks: {len(headers) - 1} there, 0 to make" in dict(report.sections)["cache so far"]


def test_masks_of_another_shape_are_refused_before_the_run(
    masked_cache: Path, check: Callable, tmp_path: Path
) -> None:
    cache = Path(shutil.copytree(masked_cache, tmp_path / "cache"))
    first, *others = sorted(cache.glob("masks/*/*.safetensors"))
    first.write_bytes(b"nothing")
    for path in others:
        write_mask(path, torch.ones(2, 2, 2), {})
    options = ("--model.init_args.objective.mask.weight=3",)
    unmasked = "--model.init_args.objective.mask.unmasked=plain"
    (problem,) = check(*options, unmasked, cache=cache).problems
    assert " masks are broken or of another shape than their clips, e.g. " in problem


def test_weights_are_one_outside_and_as_asked_inside(masked_cache: Path) -> None:
    (batch, *_) = batches(masked_cache, "train", 0, 1)
    assert batch.mask is None and pixel_weights(MaskSpec(), batch) is None
    with pytest.raises(UserError, match="model.objective.mask is set, but the batches bring no"):
        pixel_weights(MaskSpec(weight=3), batch)
    mask = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None]
    found = pixel_weights(MaskSpec(weight=3), replace(batch, mask=mask))
    assert found.flatten().tolist() == [1, 2, 3]


def test_a_run_with_masks(run_cli: Callable, masked_cache: Path, tmp_path: Path) -> None:
    common = ("--trainer.max_steps=2", "--model.init_args.optimizer.eps=1e-3")
    runs = []
    for name, options in {
        "off": (),
        "one": (f"{OPTION}.weight=1", f"{OPTION}.unmasked=plain"),
        "three": (f"{OPTION}.weight=3", f"{OPTION}.unmasked=plain"),
    }.items():
        cli = run_cli("fit", *common, *options, cache=masked_cache, root=tmp_path / name)
        runs.append({n: p for n, p in cli.model.named_parameters() if p.requires_grad})
    off, one, three = runs
    assert all(torch.equal(off[name], one[name]) for name in off)
    assert any(not torch.equal(off[name], three[name]) for name in off)


def test_clips_without_a_mask_are_named_before_the_run(
    run_cli: Callable, masked_cache: Path, small_parts: Path, tmp_path: Path
) -> None:
    message = (
        r"1 of \d+ training clips of .* have no mask, e.g. .*, but model.objective.mask is set"
    )
    with pytest.raises(CacheError, match=message):
        run_cli("fit", f"{OPTION}.weight=3", cache=masked_cache)

    def check(*options: str):
        given = cli_arguments(
            "check", *options, parts=small_parts, cache=masked_cache, root=tmp_path
        )
        return main(given).report

    (problem,) = check(f"{OPTION}.weight=3").problems
    assert "run the encode job with data.masks, or set model.objective.mask.unmasked" in problem
    report = check(f"{OPTION}.weight=3", f"{OPTION}.unmasked=plain")
    assert report.problems == []
    assert "have no mask; all of their pixels count the same." in dict(report.sections)["cache"]
    assert check().problems == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 0.0}, "objective.mask.weight is 0.0; it must be above 0"),
        ({"unmasked": "skip"}, "objective.mask.unmasked must be 'refuse' or 'plain', not 'skip'"),
    ],
)
def test_wrong_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskSpec(**options)
