"""One call runs all parts; a part that fails loses only itself; little must be installed."""

import zipfile
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import Part
from benchmarks.profiles import read_profile
from tests.conftest import ROOT
from tests.test_imports import imports

# What a plain PyTorch image has not, and the packages' archive is not to hold.
HEAVY = {"av", "tensorboard", "lightning", "torchmetrics", "jsonargparse", "omegaconf", "scipy",
         "torchvision", "sentencepiece", "librosa", "lightning_modules", "datamodules",
         "callbacks", "train"}  # fmt: skip


def loaded_by(module: str, seen: dict[str, set[str]]) -> set[str]:
    """Packages loaded when a module of ours is imported."""
    if module in seen:
        return seen[module]
    seen[module] = set()
    path = ROOT / Path(*module.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    if not file.is_file():
        return set()
    for name, types_only, at_import in imports(file):
        if types_only or not at_import:
            continue
        own = name.startswith(("benchmarks", "musicinfuser"))
        parts = name.split(".")
        ours = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        seen[module] |= (
            set().union(*(loaded_by(part, seen) for part in ours)) if own else {parts[0]}
        )
    return seen[module]


@pytest.mark.parametrize("module", sorted({part.module for part in gpu_check.PARTS}))
def test_parts_need_only_what_the_queue_lists(module: str) -> None:
    found = loaded_by(f"benchmarks.{module}", {})
    assert "torch" in found
    assert not found & HEAVY


def test_the_times_of_the_parts_that_matter_fit_in_ten_minutes() -> None:
    assert [part.name for part in gpu_check.PARTS[-3:]] == ["vae", "decode_24gb", "sample_eager"]
    assert sum(part.limit_s for part in gpu_check.PARTS[:-3]) <= 610
    assert {p.module for p in gpu_check.PARTS} == {"device", "train_step", "sample", "vae"}


def test_a_part_that_fails_or_hangs_loses_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `--help` prints and ends well; the check itself stands for a part.
    parts = (
        Part("missing", "no_such_benchmark", 30),
        Part("slow", "train_step", 0.2),
        Part("well", "gpu_check", 30, ("--help",)),
    )
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    assert gpu_check.main(["--out", str(tmp_path / "out")]) == 1
    written = (tmp_path / "out" / "summary.md").read_text()
    ends = [[c.strip() for c in line.split("|")[1:3]] for line in written.splitlines()[2:5]]
    assert ends == [["missing", "failed (1)"], ["slow", "ended after 0 s"], ["well", "done"]]
    assert "No module named" in (tmp_path / "out" / "missing.log").read_text()
    assert gpu_check.main(["--out", str(tmp_path / "out"), "--minutes", "0.01"]) == 1
    assert (tmp_path / "out" / "summary.md").read_text().count("no time left") == 3


def test_packages_come_as_wheels_or_as_an_archive(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "thing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/__init__.py", "value = 1\n")
    env = gpu_check.environment(wheels, tmp_path / "a")
    first, second = env["PYTHONPATH"].split(":")[:2]
    assert (Path(first) / "thing" / "__init__.py").read_text() == "value = 1\n"
    assert second == str(ROOT)
    with pytest.raises(ValueError, match="holds no wheels"):
        gpu_check.environment(tmp_path / "nothing", tmp_path / "b")


def test_parts_measure_profiles_that_exist():
    named = {
        part.arguments[part.arguments.index("--profile") + 1]
        for part in gpu_check.PARTS
        if "--profile" in part.arguments
    }
    assert len(named) >= 3
    for profile in named:
        assert read_profile(profile)["model"], profile
