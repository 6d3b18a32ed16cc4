"""One call runs all parts; a part that fails loses only itself; little must be installed."""

import json
import time
import zipfile
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.gpu_check import Part
from benchmarks.gpu_figures import PLAN, figures_of
from benchmarks.profiles import read_profile
from tests.conftest import ROOT
from tests.test_imports import imports

# What a plain PyTorch image has not, and the packages' archive is not to hold.
HEAVY = {"av", "tensorboard", "lightning", "torchmetrics", "jsonargparse", "omegaconf", "scipy",
         "torchvision", "sentencepiece", "librosa", "lightning_modules", "datamodules",
         "callbacks", "train", "preflight"}  # fmt: skip


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


MODULES = sorted({part.module for part in gpu_check.PARTS} | {"gpu_check"})


@pytest.mark.parametrize("module", MODULES)
def test_parts_need_only_what_the_queue_lists(module: str) -> None:
    found = loaded_by(f"benchmarks.{module}", {})
    assert "torch" in found
    assert not found & HEAVY


def test_the_times_of_the_parts_fit_in_ten_minutes() -> None:
    left = [part.name for part in gpu_check.PARTS if part not in gpu_check.SURE]
    assert left == ["sample_24gb", "decode_wan_1b", "decode_24gb", "sample_compiled"]
    assert sum(part.limit_s for part in gpu_check.SURE) <= 60 * gpu_check.MINUTES < 600
    assert {p.module for p in gpu_check.PARTS} == {"device", "train_step", "sample", "vae"}


def in_this_process(
    part: Part, out: Path, *, seconds: float, env: dict[str, str], more: Sequence[str]
) -> dict[str, str]:
    """As `gpu_check.run_part`, without the seconds that a process takes to start."""
    main = import_module(f"benchmarks.{part.module}").main
    began, end = time.monotonic(), "done"
    try:
        main([*part.arguments, *more, "--out", str(out / f"{part.name}.json")])
    except ValueError as error:
        end = f"failed (1): {error}"
    return {"part": part.name, "end": end, "seconds": f"{time.monotonic() - began:.0f}"}


def test_a_rehearsal_runs_every_part_and_leaves_one_table_and_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "run_part", in_this_process)
    code = gpu_check.main(["--out", str(tmp_path), "--try_out"])
    result = json.loads((tmp_path / "gpu_check.json").read_text())
    ends = {end["part"]: end["end"] for end in result["details"]["ends"]}
    eight_bit = ends.pop("wan_1b_8gb")
    assert ends == {p.name: "done" for p in gpu_check.PARTS if p.name != "wan_1b_8gb"}
    if find_spec("torchao") is None:
        assert code == 1 and "AdamW8bit is not installed here" in eight_bit
    else:
        assert (code, eight_bit) == (0, "done")
    what = {figure["what"]: figure["value"] for figure in result["figures"]}
    for title in ("Mochi, 73 frames", "Wan 1.3B, 81 frames"):
        ours, stock = (what[f"{title}: step{by}"] for by in ("", " by diffusers and peft"))
        assert what[f"{title}: ours over diffusers and peft"] == pytest.approx(ours / stock)
        assert what[f"{title}, sampling uncompiled: per step"] > 0
        assert what[f"{title}, VAE: decode, whole"] > 0
    for profile in ("24gb", "40gb"):
        assert what[f"Mochi, 73 frames, {profile}: step"] > 0
    assert "Wan 1.3B, 81 frames, 8gb" in str(what)
    assert result["details"]["parts"].keys() >= ends.keys()
    shown = capsys.readouterr().out.rpartition("| what")[2].splitlines()[2:]
    assert len([line for line in shown if line.startswith("|")]) == len(what)


def on_a_gpu(**changes: object) -> dict:
    """What a part on a GPU leaves, at the sizes of the plan."""
    held = {
        "policy": "full", "compiled": True, "step_s": [4.0, 2.0, 3.0], "peak_allocated": 20e9,
        "finite": True, "useful": 1000.0, "executed": 1500.0,
        "share": {"products": 0.25, "attention": 0.7, "the rest": 0.05},
    }  # fmt: skip
    eager = held | {"compiled": False, "step_s": [6.0], "peak_allocated": 21e9}
    stock = eager | {"step_s": [4.0], "peak_allocated": 30e9}
    settings = {"size": "full", "frames": 73, "height": 480, "width": 848}
    variants = {"stock": stock, "full+eager": eager, "profile": held}
    details = {"peak_tflops": 750.0, "variants": variants, "failed": {"none": "no memory"}}
    return {"benchmark": "train_step", "settings": settings | changes, "details": details}


def test_a_training_is_shown_beside_its_limit_its_plan_and_stock() -> None:
    figures = figures_of("Mochi", "done", on_a_gpu(), ("Mochi", "24gb"))
    found = {figure.what: figure for figure in figures}
    step = found["Mochi: step"]
    assert (step.value, step.limit) == (3.0, 2.0)
    assert step.note == (
        "full, compiled; 44.4 % of the peak rate; kernels: attention 70 %, products 25 %, "
        "the rest 5 %"
    )
    plan = json.loads(PLAN.read_text())["details"]
    row = next(r for r in plan["rows"] if (r["backbone"], r["profile"]) == ("Mochi", "24gb"))
    memory = found["Mochi: peak allocated"]
    assert memory.value == 20 and memory.limit == pytest.approx(row["GB on the GPU"] - 1.5)
    assert found["Mochi: peak allocated by diffusers and peft"].limit is None
    assert [figure.what for figure in figures][:2] == ["Mochi: none", "Mochi: step"]
    assert found["Mochi: ours over diffusers and peft"].value == pytest.approx(3 / 4)
    assert found["Mochi: eager over compiled"].value == pytest.approx(2)
    assert found["Mochi: none"].note == "no memory"
    other = figures_of("Mochi", "done", on_a_gpu(frames=37), ("Mochi", "24gb"))
    assert {f.what: f.limit for f in other}["Mochi: peak allocated"] is None


def test_what_was_not_measured_has_its_line() -> None:
    (figure,) = figures_of("Mochi", "ended after 80 s", None, None)
    assert (figure.value, figure.note) == ("not measured", "ended after 80 s")


def test_every_part_has_a_plan_of_its_own_clip() -> None:
    """The parts name what the plan has, or nothing of their memory would be compared."""
    rows = json.loads(PLAN.read_text())["details"]["rows"]
    named = {part.planned for part in gpu_check.PARTS if part.module == "train_step"}
    assert named <= {(row["backbone"], row["profile"]) for row in rows} and len(named) == 5


def test_a_part_that_fails_or_hangs_loses_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `--help` prints and ends well; the check itself stands for a part.
    parts = (
        Part("missing", "no_such_benchmark", 120),
        Part("slow", "train_step", 0.2),
        Part("well", "gpu_check", 120, ("--help",)),
    )
    monkeypatch.setattr(gpu_check, "PARTS", parts)
    assert gpu_check.main(["--out", str(tmp_path / "out")]) == 1
    written = (tmp_path / "out" / "summary.md").read_text()
    ends = [[c.strip() for c in line.split("|")[1:3]] for line in written.splitlines()[2:5]]
    assert ends.pop(0)[1].startswith("failed (1): ")
    assert ends == [["slow", "ended after 0 s"], ["well", "done"]]
    figures = json.loads((tmp_path / "out" / "gpu_check.json").read_text())["figures"]
    assert [figure["value"] for figure in figures] == ["not measured"] * 3
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
