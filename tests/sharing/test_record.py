"""What is exported from a checkpoint says what was trained, or that nobody knows."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from musicinfuser.adapters.settings import AdapterFileError
from musicinfuser.convert import main


@pytest.fixture
def run(fitted: SimpleNamespace, tmp_path: Path) -> Path:
    """A copy of a run whose checkpoint and record a test may change."""
    root = tmp_path / "run"
    shutil.copytree(fitted.root / "checkpoints", root / "checkpoints")
    shutil.copytree(fitted.root / "logs", root / "logs")
    return root


def convert(run: Path, *options: str) -> tuple[str, dict]:
    """The card and the configuration of the exported folder."""
    target = run.parent / "adapter"
    main(["checkpoint", str(run / "checkpoints" / "last.ckpt"), str(target), *options])
    return (target / "README.md").read_text(), yaml.safe_load((target / "config.yaml").read_text())


def forget_names(run: Path) -> None:
    """Make the checkpoint one of before it held the names of the frozen parts."""
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    for name in set(checkpoint["musicinfuser"]) - {"model", "optimizer"}:
        del checkpoint["musicinfuser"][name]
    torch.save(checkpoint, path)


def change(path: Path, **changes: object) -> Path:
    config = yaml.safe_load(path.read_text())
    config["model"]["init_args"].update(changes)
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_card_names_what_was_trained(run: Path, small_parts: Path) -> None:
    shutil.rmtree(run / "logs")
    card, config = convert(run)
    assert f"| base model | {small_parts} |" in card
    assert f"| audio encoder | {small_parts} |" in card
    assert config["adapter"]["lora"]["rank"] == 2, "the record is not there"
    card, _ = convert(run, "--base_model", "someone/mochi")
    assert "| base model | someone/mochi |" in card and "base_model: someone/mochi" in card
    assert f"| audio encoder | {small_parts} |" in card


def test_an_old_checkpoint_is_told_by_its_record(run: Path, small_parts: Path) -> None:
    forget_names(run)
    card, config = convert(run)
    assert f"| base model | {small_parts} |" in card
    assert f"| audio encoder | {small_parts} |" in card
    assert config["model"]["init_args"]["lora"]["rank"] == 2


def test_without_a_record_nothing_is_made_up(run: Path) -> None:
    forget_names(run)
    shutil.rmtree(run / "logs")
    card, _ = convert(run)
    assert "| base model | not known |" in card
    assert "| audio encoder | not known |" in card
    assert "genmo" not in card and "base_model" not in card
    assert "wav2vec2-base" not in card.split("## Files")[0]
    assert 'from_pretrained("BASE_MODEL"' in card
    peft = yaml.safe_load((run.parent / "adapter" / "adapter_config.json").read_text())
    assert peft["base_model_name_or_path"] is None


OTHER = {
    "rank": ({"lora": {"rank": 4}}, "lora.rank: 2 in the checkpoint, 4 in the config"),
    "no LoRA": ({"lora": None}, "lora.rank: 2 in the checkpoint, no LoRA in the config"),
    "blocks": ({"layers": [0]}, r"layers: \(0, 2\) in the checkpoint, \(0,\) in the config"),
    "strategy": ({"layers": {"strategy": "all"}}, r"layers: \(0, 2\) in the checkpoint, \(0, 1, 2"),
    "heads": ({"zica": {"num_heads": 4}}, "zica.num_heads: 8 in the checkpoint, 4 in the config"),
    "tokens": ({"audio_resampling": "centre"}, "audio_resampling: nearest in the checkpoint"),
    "rate": (
        {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.5}}},
        "optimizer.init_args.lr: 0.01 in the checkpoint, 0.5 in the config",
    ),
}


@pytest.mark.parametrize("case", OTHER)
@pytest.mark.parametrize("is_given", [False, True])
def test_the_record_of_another_training_is_refused(run: Path, case: str, is_given: bool) -> None:
    changes, said = OTHER[case]
    record = change(run / "logs" / "config_fit.yaml", **changes)
    options: list[str] = []
    if is_given:
        options = ["--config", str(record.rename(run / "other.yaml"))]
    with pytest.raises(AdapterFileError, match=rf"is of another training .*{said}.*; give"):
        convert(run, *options)
    assert not (run.parent / "adapter").exists()


OPEN = {"strategy": "adaptability", "scores": "no/longer/there.json"}


@pytest.mark.parametrize("changes", [{"lora": {"rank": 2}}, {"layers": OPEN}, {"zica": {}}])
def test_what_a_record_leaves_open_agrees(run: Path, changes: dict) -> None:
    change(run / "logs" / "config_fit.yaml", **changes)
    convert(run)


@pytest.mark.parametrize("text", ["a: [", "\x00", "- just\n- a list\n"])
def test_what_is_no_configuration(run: Path, text: str) -> None:
    (run / "logs" / "config_fit.yaml").write_text(text)
    with pytest.raises(AdapterFileError, match=r"config_fit\.yaml .*yaml|no configuration"):
        convert(run)
