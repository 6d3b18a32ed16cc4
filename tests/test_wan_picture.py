"""A small Wan of the 5B's form through training, validation and generation from a first picture."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.batch import collate
from datamodules.mixing import SampleKey
from lightning_modules.velocity import noise_of
from musicinfuser.diffusion.flow import interpolate, velocity_loss, with_first_given
from musicinfuser.generation import generate
from musicinfuser.generation_requests import GenerationRequest
from musicinfuser.keyed_random import uniform
from musicinfuser.latent_space import normalise
from musicinfuser.media.pictures import read_picture
from tests import small_wan
from tests.test_predict import SigtermInFirstStep, decode

SIZE = {"num_frames": 9, "height": 32, "width": 64}
SHARE = "--model.init_args.objective.first_frame_probability"


@pytest.fixture(scope="module")
def run(small_parts, media, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan_5b")
    return small_wan.Runs(folder, small_parts, media, SIZE, is_5b=True)


@pytest.fixture(scope="module")
def fitted(run):
    """Three steps in two goes."""
    run("fit", "--model.init_args.schedule.decay=constant")
    return run("fit", "--model.init_args.schedule.decay=constant", "--trainer.max_steps=3")


def test_a_resumed_training_is_one_that_ran_through_to_the_bit(fitted, run, tmp_path):
    through = run(
        "fit", "--model.init_args.schedule.decay=constant", "--trainer.max_steps=3",
        root=tmp_path,
    ).model  # fmt: skip
    assert through.objective.first_frame_probability == 0.5
    drawn = uniform(through.seed, range(3), "first frame") < 0.5
    assert set(drawn.tolist()) == {True, False}
    names = sorted(through.adapted.trainable_names())
    ours, theirs = (dict(m.adapted.named_parameters()) for m in (fitted.model, through))
    assert all(torch.equal(ours[name], theirs[name]) for name in names)


@pytest.fixture(scope="module")
def batch(fitted):
    clips = fitted.trainer.datamodule.training_clips
    return collate([clips[SampleKey("aist", 0, index)] for index in range(8)])


def test_samples_are_drawn_by_their_index_alone(fitted, batch):
    model = fitted.model
    drawn = model._first_given(batch)
    expected = (uniform(model.seed, range(8), "first frame") < 0.5).tolist()
    assert drawn.tolist() == expected and 1 < sum(expected) < 7
    for i, is_given in enumerate(expected):
        alone = model._first_given(replace(batch, sample_index=(i,)))
        assert (alone is not None) == is_given


@torch.no_grad()
def test_the_loss_of_a_given_frame_is_that_of_the_others(fitted, batch):
    """By hand: the first frame is as the cache has it, without noise, and does not count."""
    model, sigma = fitted.model, torch.linspace(0.2, 0.9, 8)
    given = torch.arange(8) % 2 == 0
    found = model.velocity_losses(
        batch, sigma, audio=batch.audio, purpose="training", first_given=given
    )
    noise = noise_of(batch, "training noise", seed=model.seed)
    latents = normalise(batch.latent_mean.float(), batch.latents_mean, batch.latents_std)
    for i in range(8):
        z, eps, level = latents[i : i + 1], noise[i : i + 1], sigma[i]
        noisy = (1 - level) * z + level * eps
        levels = (1000 * level).repeat(1, 3)
        if given[i]:
            noisy[:, :, 0], levels[:, 0] = z[:, :, 0], 0
        predicted = model.adapted(
            noisy, batch.text[i : i + 1], levels if given[i] else levels[:, 0],
            audio_features=batch.audio[i : i + 1], text_lengths=batch.text_lengths[i : i + 1],
        )  # fmt: skip
        error = (predicted - (z - eps)).square()[:, :, int(given[i]) :]
        assert found[i].item() == pytest.approx(error.mean().item(), rel=1e-5)


def test_levels_and_losses_of_frames():
    sigma, given = torch.tensor([0.3, 0.6]), torch.tensor([True, False])
    levels = with_first_given(sigma, 3, given)
    assert torch.equal(levels, torch.tensor([[0, 0.3, 0.3], [0.6, 0.6, 0.6]]))
    assert torch.equal(with_first_given(sigma, 2), torch.tensor([[0, 0.3], [0, 0.6]]))
    stream = torch.Generator().manual_seed(0)
    z, eps = torch.randn(2, 2, 5, 3, 2, 2, generator=stream)
    noisy = interpolate(z, eps, levels)
    assert torch.equal(noisy[0, :, 0], z[0, :, 0])
    assert torch.equal(noisy[1], interpolate(z, eps, sigma)[1])
    loss = velocity_loss(z, eps, first_given=given)
    assert loss[0].item() == pytest.approx((z - eps)[0, :, 1:].square().mean().item())
    assert loss[1].item() == pytest.approx(velocity_loss(z, eps)[1].item())


def test_validation_logs_both(fitted, run):
    found = run("validate", "--trainer.limit_val_batches=1").trainer.callback_metrics
    for name in ("loss", "loss_other_music", "music_gap", "music_gap_sigma_0.60"):
        assert f"val/{name}" in found and f"val/{name}_first_frame" in found
    assert found["val/loss"] != found["val/loss_first_frame"]
    plain = run("validate", "--trainer.limit_val_batches=1", f"{SHARE}=0").trainer.callback_metrics
    assert plain["val/loss"] == found["val/loss"]
    assert not [name for name in plain if "first_frame" in name]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with a red and a blue picture, larger than a clip."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, colour in (("red", (220, 30, 30)), ("blue", (30, 30, 220))):
        Image.fromarray(np.full((90, 120, 3), colour, np.uint8)).save(folder / f"{name}.png")
    return folder


def asked(folder, media, rows):
    """A list of requests beside the pictures; paths in it are relative to it."""
    song = next((media / "aist").glob("*.mp4"))
    path = folder / "requests.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["track", "prompt", "seed", "image"])
        writer.writeheader()
        writer.writerows({"track": song, "prompt": "p", "seed": 0} | row for row in rows)
    return {"requests": str(path)}


def manifest(root):
    lines = (root / "videos" / "manifest.jsonl").read_text().splitlines()
    return {row["image"] and Path(row["image"]).stem: row for row in map(json.loads, lines)}


def test_it_begins_with_the_picture_of_a_line(fitted, run, media, pictures, tmp_path):
    rows = [{"image": "red.png"}, {"image": "blue.png"}, {"image": ""}]
    generation = asked(pictures, media, rows)
    run("predict", f"--data.init_args.generation={json.dumps(generation)}")
    found = manifest(run.root)
    assert set(found) == {"red", "blue", None}
    assert found[None]["system"] == "musicinfuser"
    assert found["red"]["system"] == "musicinfuser, first picture"
    frames = {name: decode(run.root / "videos" / row["file"]) for name, row in found.items()}
    assert frames["red"].shape == (9, 32, 64, 3)
    assert np.abs(frames["red"].astype(int) - frames["blue"]).mean() > 1
    assert np.abs(frames["red"].astype(int) - frames[None]).mean() > 1
    # What is finished is not made again, with its picture; another picture is another clip.
    generation["finished"] = {"folder": str(run.root / "videos")}
    listed = f"--data.init_args.generation={json.dumps(generation)}"
    run("predict", listed, "--ckpt_path=null", root=tmp_path)
    assert not list((tmp_path / "videos").glob("*.mp4"))


def test_the_first_frame_is_what_the_vae_makes_of_the_picture(fitted, media, pictures):
    module, device = fitted.model, torch.device("cpu")
    request = GenerationRequest(
        str(next((media / "aist").glob("*.mp4"))), "p", 0, **SIZE, image=str(pictures / "red.png")
    )
    made, without = (
        generate(module.adapted, module.encoders, r, module.sampling, device=device).frames
        for r in (request, replace(request, image=None))
    )
    picture = read_picture(request.image, height=32, width=64)
    latents = module.encoders.encode_picture(picture, device=device)
    alone = module.encoders.decode_video(latents)[0, 0]
    assert (made[0].int() - alone).abs().max() <= 1
    assert (made[1:].int() - without[1:]).abs().float().mean() > 1


def test_a_song_from_a_picture_goes_on_after_a_sigterm(fitted, run, media, pictures, tmp_path):
    """Windows of 9 frames; a picture that has changed begins the clip anew."""
    song = str(next((media / "aist").glob("*.mp4")))
    own = tmp_path / "own.png"
    own.write_bytes((pictures / "red.png").read_bytes())
    generation = {
        "music": [song], "prompts": ["p"], "num_seconds": 0.9, "image": str(own)
    }  # fmt: skip
    arguments = [
        f"--data.init_args.generation={json.dumps(generation)}",
        "--model.init_args.sampling.num_steps=3", "--model.init_args.sampling.window_frames=9",
        "--model.init_args.sampling.window_overlap_frames=4",
    ]  # fmt: skip
    checkpoint = f"--ckpt_path={run.root}/checkpoints/last.ckpt"
    run("predict", checkpoint, *arguments, root=tmp_path / "whole")
    whole = manifest(tmp_path / "whole")["own"]
    assert whole["num_frames"] > 9 and whole["in_windows"]
    told = f"--trainer.callbacks+={SigtermInFirstStep.__module__}.SigtermInFirstStep"
    root = tmp_path / "cut"
    with pytest.raises(SystemExit):
        run("predict", checkpoint, *arguments, told, root=root)
    (kept,) = (root / "songs_under_way").iterdir()
    own.write_bytes((pictures / "blue.png").read_bytes())
    run("predict", checkpoint, *arguments, root=root)
    assert kept.is_file() and manifest(root)["own"]["sha256"] != whole["sha256"]
    own.write_bytes((pictures / "red.png").read_bytes())
    run("predict", checkpoint, *arguments, root=root)
    assert not kept.is_file() and manifest(root)["own"]["sha256"] == whole["sha256"]


def test_what_is_refused(run, media, pictures, small_parts, tmp_path, capsys):
    song = str(next((media / "aist").glob("*.mp4")))
    (pictures / "text.png").write_text("no picture")

    def refused(message, generation, *arguments):
        with pytest.raises((ValueError, SystemExit)) as stopped:
            run("predict", f"--data.init_args.generation={json.dumps(generation)}", *arguments)
        said = f"{stopped.value}{capsys.readouterr().err}"
        assert message in said, said

    plain = {"music": [song], "prompts": ["p"], "image": str(pictures / "none.png")}
    refused("data.generation.image names", plain)
    refused("text.png: cannot be read as a picture", plain | {"image": str(pictures / "text.png")})
    generation = asked(pictures, media, [{"image": "red.png"}, {"image": "green.png"}])
    refused("line 3: image names green.png, which exists neither in", generation)
    of_wan = [
        *(f"--{name}.family=wan" for name in (
            "model.init_args.backbone", "model.init_args.encoders", "model.init_args.sampling")),
        "--data.init_args.family=wan", "--sample_generation.family=wan",
    ]  # fmt: skip
    refused("line 2: an image is given, but Wan cannot begin a clip with a picture", generation,
            *of_wan, f"{SHARE}=0")  # fmt: skip
    refused("first_frame_probability is 0.5, but Wan cannot begin", generation, *of_wan)
