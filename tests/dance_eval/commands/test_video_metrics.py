"""The shipped list of video metrics, through evaluate.py, with small models in place of large."""

import torch
import yaml
from torchvision.models.optical_flow import raft_small

from musicinfuser.media.video_writing import write_video
from musicinfuser.safetensors_files import save_tensors
from tests.conftest import ROOT
from tests.scored_dances import score
from tests.small_encoders import noise, write_small_clip, write_small_dino, write_small_videomae

SHIPPED = ROOT / "dance_eval" / "configs" / "video_metrics.yaml"


def with_commented(text):
    """The list with the metrics that its comments say to add."""
    lines = []
    for line in text.splitlines():
        if line.startswith(("# - ", "#   ", "#     ", "#       ")):
            lines.append(line[2:])
        elif not line.startswith("#"):
            lines.append(line)
    return yaml.safe_load("\n".join(lines))


def test_the_list_and_what_its_comments_add(tmp_path):
    for system in ("ours", "ground truth"):
        for index in range(3):
            frames = noise(5, 128, 136, seed=index + 10 * (system == "ours")) // 4
            path = tmp_path / "clips" / f"{system} {index}.mp4"
            write_video(path, frames, fps=15.0)
    rows = [f"{s} {k}.mp4,{s},song.wav" for s in ("ours", "ground truth") for k in range(3)]
    (tmp_path / "clips" / "clips.csv").write_text("\n".join(["file,system,track", *rows]) + "\n")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_tensors(raft_small(weights=None).state_dict(), tmp_path / "raft.safetensors")
    folders = {
        "facebook/dino-vitb16": write_small_dino(tmp_path / "dino"),
        "openai/clip-vit-base-patch32": write_small_clip(tmp_path / "clip"),
        "MCG-NJU/videomae-base-finetuned-ssv2": write_small_videomae(tmp_path / "videomae"),
    }
    metrics = with_commented(SHIPPED.read_text())
    names = [metric["init_args"]["name"] for metric in metrics]
    assert {"motion_smoothness", "brisque", "videomae_frechet", "frame_frechet"} <= set(names)
    kept = []
    for metric in metrics:
        arguments = metric["init_args"]
        # An optional package and a program of another environment.
        if arguments["name"] in ("motion_smoothness", "brisque"):
            continue
        if "flow" in arguments:
            arguments["flow"] = {
                "weights": str(tmp_path / "raft.safetensors"), "size": "small", "num_updates": 1,
                "device": "cpu",
            }  # fmt: skip
        if "num_frames" in arguments:
            arguments |= {"num_frames": 2, "num_resamples": 5}
        features = arguments.get("features", {}).get("init_args", arguments)
        if (encoder := features.get("encoder")) is not None:
            settings = encoder.get("init_args", encoder)
            settings["weights"] = folders[settings["weights"]]
        kept.append(metric)
    (tmp_path / "metrics.yaml").write_text(yaml.safe_dump(kept))
    document = score(
        tmp_path / "clips", f"--metrics={tmp_path / 'metrics.yaml'}", output=tmp_path / "m.json"
    )
    assert not any(clip["failures"] for clip in document["clips"])
    ours = document["systems"]["ours"]
    for name in ("temporal_flickering", "flow_smoothness", "dynamic_degree"):
        assert ours[f"{name}/score"]["n"] == 3 and ours[f"{name}/shuffled"]["mean"] is not None
    assert ours["videomae_frechet/distance"]["mean"] > 0
    assert ours["videomae_frechet/shuffled"]["n"] == 3
    assert ours["frame_frechet/distance"]["mean"] > 0
    assert ours["subject_fidelity/score"]["mean"] < 1
    # Beside every value stands what it is by chance.
    for name in names:
        if name in ("motion_smoothness", "brisque"):
            continue
        nulls = ("shuffled", "to_other", "mixed")
        found = [f"{name}/{null}" for null in nulls if ours.get(f"{name}/{null}", {}).get("n")]
        assert found, name
    assert ours["colour_drift/score"]["mean"] >= 0
