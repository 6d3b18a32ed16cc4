import csv
import json

import pytest
import torch

from dance_eval.metrics.clip import ClipMetric, ScoredClip
from dance_eval.metrics.clip_folder import list_clips
from dance_eval.metrics.report import compared_rows
from evaluate import main
from musicinfuser.keyed_random import generator
from musicinfuser.media.video_writing import write_video
from small_world.metrics.attribute_accuracy import AttributeAccuracy, named_in
from small_world.metrics.attributes import AttributeNet
from small_world.metrics.pose import PoseNet
from small_world.metrics.probes import ProbeError, pixels_of

PHRASES = {
    "genre": {"Hip-hop": {"genre": "MH"}, "LA Hip-hop": {"genre": "LH"}, "House": {"genre": "HO"}},
    "top": {
        "red shirt": {"top": "red"},
        "red shirts": {"top": "red"},
        "dark red shirt": {"top": "black"},
    },
    "bottom": {"black trousers": {"bottom": "black"}},
    "backdrop": {
        "white studio": {"kind": "studio"},
        "red wall": {"kind": "plain", "colour": "red"},
        "red and blue striped wall": {"kind": "stripes", "colour": "red"},
    },
}
CLASSES = {
    "genre": ["MH", "LH", "HO"],
    "top": ["red", "black"],
    "bottom": ["white", "black"],
    "kind": ["studio", "plain", "stripes"],
    "colour": ["red", "blue"],
}
CONFIG = {
    "size": 32, "fine_width": 4, "coarse_width": 4, "classes": CLASSES, "phrases": PHRASES,
}  # fmt: skip
FULL = "a man in a red shirt and black trousers dancing House before a red wall"


def noise(num_frames, seed=0):
    stream = generator(seed, 0, "test frames")
    return torch.randint(256, (num_frames, 32, 32, 3), generator=stream, dtype=torch.uint8)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    network = AttributeNet(CONFIG).train()
    network.describe(pixels_of(noise(8), size=32))
    network.save(tmp_path / "attributes")
    return str(tmp_path / "attributes")


def clip_of(prompt, num_frames=4):
    return ScoredClip(
        frames=noise(num_frames), fps=30.0, waveform=None, rate_hz=1, name="clip.mp4", seed=0,
        prompt=prompt,
    )  # fmt: skip


def see(monkeypatch, **seen):
    monkeypatch.setattr(AttributeNet, "seen_in", lambda self, frames: seen)


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        (FULL, {"genre": "HO", "top": "red", "bottom": "black", "kind": "plain", "colour": "red"}),
        ("two men in red shirts", {"top": "red"}),
        ("LA Hip-hop in a white studio", {"genre": "LH", "kind": "studio"}),
        ("Hip-hop", {"genre": "MH"}),
        ("a dark red shirt", {"top": "black"}),
        ("before a red and blue striped wall.", {"kind": "stripes", "colour": "red"}),
        ("at home in a house, bored shirt, red walled", {}),
        ("House or Hip-hop", {}),
        ("House after House", {"genre": "HO"}),
        ("a white studio with a red wall", {}),
        ("", {}),
    ],
)
def test_prompts_name_whole_words_once(prompt, named):
    found = named_in(prompt, PHRASES)
    together = {name: value for classes in found.values() for name, value in classes.items()}
    assert together == named


def test_what_is_named_is_compared_with_what_is_seen(folder, monkeypatch):
    see(monkeypatch, genre="HO", top="black", bottom="black", kind="plain", colour="blue")
    metric = AttributeAccuracy(weights=folder)
    assert metric.score_clip(clip_of(FULL)) == {
        "obeyed": 0.5, "genre": 1, "top": 0, "bottom": 1, "backdrop": 0, "num_named": 4,
    }  # fmt: skip
    assert metric.score_clip(clip_of("a red shirt")) == {"obeyed": 0, "top": 0, "num_named": 1}
    # A studio has no colour to be wrong about.
    see(monkeypatch, genre="HO", top="black", bottom="black", kind="studio", colour="blue")
    values = metric.score_clip(clip_of("House in a white studio"))
    assert values == {"obeyed": 1, "genre": 1, "backdrop": 1, "num_named": 2}


def test_a_prompt_that_names_nothing_has_no_share(folder):
    assert AttributeAccuracy(weights=folder).score_clip(clip_of("a dance")) == {"num_named": 0}


def test_a_clip_without_a_prompt_cannot_be_scored(folder):
    with pytest.raises(ValueError, match=r"clip.mp4: has no prompt .* clips.csv\.$"):
        AttributeAccuracy(weights=folder).score_clip(clip_of(None))


def test_averages_are_over_the_clips_that_have_a_value(folder, monkeypatch):
    see(monkeypatch, genre="HO", top="black", bottom="black", kind="plain", colour="red")
    clips = [clip_of(FULL), clip_of("a red shirt"), clip_of("a dance")]
    metric, here, there = (AttributeAccuracy(weights=folder) for _ in range(3))
    for clip in clips:
        metric.update(clip)
    here.update(clips[0])
    there.update(clips[1])
    there.update(clips[2])
    here.merge_state(there)
    for average in (metric.compute(), here.compute()):
        assert {name: float(value) for name, value in average.items()} == pytest.approx(
            {
                "obeyed": (0.75 + 0) / 2, "genre": 1, "top": 0, "bottom": 1, "backdrop": 1,
                "num_named": 5 / 3,
            }
        )  # fmt: skip


def test_only_optional_values_may_be_absent():
    assert AttributeAccuracy.is_complete({"num_named"})
    assert AttributeAccuracy.is_complete(AttributeAccuracy.value_names)
    assert not AttributeAccuracy.is_complete({"obeyed", "genre"})
    assert not AttributeAccuracy.is_complete({"num_named", "colour"})
    assert not type("Plain", (ClipMetric,), {"value_names": ("a", "b")}).is_complete({"a"})


def test_looks_are_the_mean_over_frames_and_moves_are_read_in_order(folder, monkeypatch):
    network = AttributeNet.load(folder)
    frames = noise(6)
    logits = network.read(frames)
    assert {name: len(values) for name, values in logits.items()} == {
        name: len(classes) for name, classes in CLASSES.items()
    }
    alone = [network.read(frame[None]) for frame in frames]
    for name in CLASSES:
        mean = torch.stack([one[name] for one in alone]).mean(dim=0)
        assert torch.allclose(logits[name], mean, atol=1e-4) == (name != "genre")
    backwards = network.read(frames.flip(0))
    assert torch.allclose(backwards["top"], logits["top"], atol=1e-5)
    assert not torch.allclose(backwards["genre"], logits["genre"], atol=1e-5)
    monkeypatch.setattr("small_world.metrics.probes.CHUNK_FRAMES", 4)
    for name, values in network.read(frames).items():
        torch.testing.assert_close(values, logits[name], rtol=1e-4, atol=1e-5)
    _, looks = network.describe(pixels_of(frames, size=32))
    for name, values in looks.items():
        torch.testing.assert_close(values.mean(dim=0), logits[name], rtol=1e-4, atol=1e-5)


def test_the_likeliest_class_is_seen(folder, monkeypatch):
    network = AttributeNet.load(folder)
    logits = {name: torch.arange(float(len(classes))) for name, classes in CLASSES.items()}
    monkeypatch.setattr(network, "read", lambda frames: logits)
    last = {name: classes[-1] for name, classes in CLASSES.items()}
    assert network.seen_in(noise(1)) == last


def test_wrong_probes_are_refused(folder, tmp_path):
    config = {"size": 32, "fine_width": 4, "coarse_width": 4, "joints": ["head"]}
    PoseNet(config).save(tmp_path / "pose")
    with pytest.raises(ProbeError, match="is not a 'attributes' probe"):
        AttributeAccuracy(weights=str(tmp_path / "pose"))
    AttributeNet({**CONFIG, "phrases": {"genre": {}}}).save(tmp_path / "other")
    with pytest.raises(ProbeError, match=r"judges \['genre'\]"):
        AttributeAccuracy(weights=str(tmp_path / "other"))
    with pytest.raises(ProbeError, match="without frames"):
        AttributeNet.load(folder).read(noise(0))


def test_prompts_reach_the_metric_from_both_lists(folder, tmp_path, monkeypatch, capsys):
    see(monkeypatch, genre="HO", top="black", bottom="black", kind="plain", colour="red")
    clips = tmp_path / "clips"
    for index in range(4):
        write_video(clips / f"clip{index}.mp4", noise(4, seed=index), fps=30.0)
    prompts = [FULL, "a red shirt", "a dance", ""]
    with (clips / "clips.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "system", "track", "prompt"])
        rows.writerows([f"clip{i}.mp4", "ours", "", prompt] for i, prompt in enumerate(prompts))
    path = tmp_path / "metrics.yaml"
    path.write_text(
        json.dumps(
            [
                {
                    "class_path": "small_world.metrics.attribute_accuracy.AttributeAccuracy",
                    "init_args": {"weights": folder},
                }
            ]
        )
    )
    output = tmp_path / "metrics.json"
    arguments = ["score", str(clips), f"--metrics={path}", f"--output={output}"]
    main(arguments)
    first = output.read_text()
    document = json.loads(first)
    summary = document["systems"]["ours"]
    counts = {name.partition("/")[2]: values["n"] for name, values in summary.items()}
    assert counts == {
        "obeyed": 2, "genre": 1, "top": 2, "bottom": 1, "backdrop": 1, "num_named": 3,
    }  # fmt: skip
    assert summary["attribute_accuracy/obeyed"]["mean"] == pytest.approx(0.375)
    assert summary["attribute_accuracy/genre"]["num_failed"] == 1
    assert "clip3.mp4" in document["clips"][3]["failures"]["attribute_accuracy"]
    cells = {row["mean [95% interval]"]: row["ours"] for row in compared_rows(document)}
    assert cells["attribute_accuracy/genre"] == "1.000 (n = 1)"
    assert cells["attribute_accuracy/obeyed"].endswith(" (n = 2)")
    assert "n =" not in cells["attribute_accuracy/num_named"]
    assert cells["attribute_accuracy: clips scored"] == "3"
    # Clips with some values only count as scored.
    monkeypatch.setattr(AttributeAccuracy, "score_clip", None)
    (clips / "clip3.mp4").unlink()
    (clips / "clips.csv").write_text(
        "file,system,track,prompt\n"
        + "".join(f"clip{i}.mp4,ours,,{prompt}\n" for i, prompt in enumerate(prompts[:3]))
    )
    main(arguments)
    assert json.loads(output.read_text())["clips"] == document["clips"][:3]
    # Another prompt is another question.
    (clips / "clips.csv").write_text("file,system,track,prompt\nclip1.mp4,ours,,House\n")
    with pytest.raises(ValueError, match="could be scored"):
        main([*arguments])
    manifest = "".join(
        json.dumps({"file": f"clip{i}.mp4", "prompt": prompt}) + "\n"
        for i, prompt in enumerate(prompts[:3])
    )
    (clips / "manifest.jsonl").write_text(manifest)
    assert [entry.prompt for entry in list_clips(clips)[0]] == prompts[:3]
