"""The shipped list of picture metrics, through evaluate.py, with small models in place of large."""

import json

import pytest
import torch
import yaml

from dance_eval.commands.options import read_metrics
from dance_eval.loading import EvaluationError
from dance_eval.metrics.frechet import frechet_distance
from dance_eval.metrics.image_encoders import ClipEncoder
from evaluate import main
from musicinfuser.media.video import read_clip
from musicinfuser.media.video_writing import write_video
from musicinfuser.safetensors_files import save_tensors
from tests.conftest import ROOT
from tests.small_encoders import WIDTH, noise, write_small_clip, write_small_dino

SHIPPED = yaml.safe_load((ROOT / "dance_eval" / "configs" / "picture_metrics.yaml").read_text())


def encoder_of(arguments):
    inner = arguments["features"]["init_args"] if "features" in arguments else arguments
    return inner.get("encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips, one of them without a prompt, and a list of metrics with small weights."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(4):
        frames = noise(1, 36, 64, seed=index).expand(5, -1, -1, -1)
        write_video(folder / "clips" / f"clip{index}.mp4", frames, fps=30.0)
    rows = ["file,system,track,prompt,seed", "clip0.mp4,ours,,a dance,0", "clip1.mp4,ours,,,0"]
    rows += [f"clip{2 + seed}.mp4,truth,song.wav,a dance,{seed}" for seed in range(2)]
    (folder / "clips" / "clips.csv").write_text("\n".join(rows) + "\n")
    save_tensors({"weight": torch.ones(1, WIDTH), "bias": torch.ones(1)}, folder / "head")
    (folder / "musiq.pth").write_text("")
    clip, dino = write_small_clip(folder / "clip"), write_small_dino(folder / "dino")
    metrics = yaml.safe_load(yaml.safe_dump(SHIPPED))
    for metric in metrics:
        arguments = metric["init_args"]
        if (encoder := encoder_of(arguments)) is not None:
            encoder["weights"] = dino if "dino" in encoder["weights"] else clip
        if "head" in arguments:
            arguments["head"] = str(folder / "head")
        if "command" in arguments:
            assert arguments["command"][1:] == ["-m", "dance_eval.workers.musiq"]
            arguments["command"][0] = "/no/such/python"
            arguments["weights"] = str(folder / "musiq.pth")
    features = next(m["init_args"]["features"] for m in metrics if "Div" in m["class_path"])
    frechet = {"name": "clip_frechet", "reference": "truth", "features": features}
    metrics.append(
        {"class_path": "dance_eval.metrics.frechet.FrechetDistance", "init_args": frechet}
    )
    (folder / "metrics.yaml").write_text(yaml.safe_dump(metrics))
    return folder


def decoded(path):
    return read_clip(
        path, start_seconds=0.0, num_frames=5, height=36, width=64, fps=30.0, crop=None
    )


def test_scores_and_failures_are_counted_and_values_are_kept(folder, tmp_path, capsys):
    output = tmp_path / "metrics.json"
    arguments = [
        "score",
        str(folder / "clips"),
        f"--metrics={folder}/metrics.yaml",
        f"--output={output}",
    ]
    main(arguments)
    document = json.loads(output.read_text())
    first, second = document["clips"][:2]
    done = {"background_consistency", "subject_consistency", "aesthetic_quality"}
    assert first["values"].keys() == {*done, "clip_score"} and second["values"].keys() == done
    assert "has no prompt" in second["failures"]["clip_score"]
    for record in (first, second):
        assert "`/no/such/python -m" in record["failures"]["imaging_quality"]
        assert record["values"]["subject_consistency"]["score"] > 0.9
    frames = decoded(folder / "clips" / "clip0.mp4")
    encoder = ClipEncoder(str(folder / "clip"))
    vectors = encoder.embed_images(frames, antialias=False)
    sums = torch.nn.functional.normalize(vectors, dim=-1).sum(dim=-1)
    assert first["values"]["aesthetic_quality"]["score"] == pytest.approx(
        float((sums + 1).mean()) / 10, abs=1e-5
    )
    files = {spec["init_args"]["name"]: spec["files"] for spec in document["metrics"]}
    assert files.keys() == {metric["init_args"]["name"] for metric in SHIPPED} | {"clip_frechet"}
    assert all(spec["weights"] for spec in files.values()) and files["aesthetic_quality"]["head"]
    means = []
    for index in range(4):
        frames = decoded(folder / "clips" / f"clip{index}.mp4")
        means.append(encoder.embed_images(frames, antialias=True).double().mean(dim=0))
    ours, truth = document["systems"]["ours"], document["systems"]["truth"]
    between = frechet_distance(torch.stack(means[:2]), torch.stack(means[2:]))
    assert ours["clip_frechet/distance"]["mean"] == pytest.approx(between)
    seeds_apart = float((means[2] - means[3]).norm())
    assert truth["clip_diversity/distance"]["mean"] == pytest.approx(seeds_apart)
    # Beside every value stands what it is by chance.
    nulls = [f"{name}/shuffled" for name in ("subject_consistency", "background_consistency")]
    nulls += ["aesthetic_quality/scrambled", "clip_diversity/to_other", "clip_frechet/mixed"]
    assert {name: ours[name]["n"] for name in nulls} == dict.fromkeys(nulls, 2)
    # Known values are kept while the weights are the same ones.
    main(arguments)
    assert json.loads(output.read_text())["clips"] == document["clips"]
    capsys.readouterr()


def test_the_shipped_list_names_what_vbench_uses():
    weights = {
        metric["init_args"]["name"]: (encoder_of(metric["init_args"]) or metric["init_args"])[
            "weights"
        ]
        for metric in SHIPPED
    }
    assert weights == {
        "clip_score": "openai/clip-vit-base-patch32",
        "background_consistency": "openai/clip-vit-base-patch32",
        "subject_consistency": "facebook/dino-vitb16",
        "aesthetic_quality": "openai/clip-vit-large-patch14",
        "imaging_quality": "weights/musiq_spaq_ckpt-358bb6af.pth",
        "clip_diversity": "openai/clip-vit-base-patch32",
    }


def test_wrong_settings_end_before_any_clip(folder, tmp_path):
    metrics = yaml.safe_load((folder / "metrics.yaml").read_text())[:1]
    metrics[0]["init_args"]["encoder"]["weights"] = str(folder / "dino")
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(metrics))
    with pytest.raises(ValueError, match="holds a 'vit' model, not a 'clip' model"):
        read_metrics(tmp_path / "wrong.yaml")


def test_weights_that_cannot_be_read_are_one_sentence(folder, tmp_path):
    metrics = yaml.safe_load((folder / "metrics.yaml").read_text())
    musiq = next(m for m in metrics if m["init_args"]["name"] == "imaging_quality")
    musiq["init_args"]["weights"] = "/proc/self/mem"  # a file, and an input/output error
    (tmp_path / "unreadable.yaml").write_text(yaml.safe_dump([musiq]))
    with pytest.raises(
        EvaluationError, match="unreadable.yaml: imaging_quality: .*error"
    ) as caught:
        read_metrics(tmp_path / "unreadable.yaml")
    assert "\n" not in str(caught.value)
