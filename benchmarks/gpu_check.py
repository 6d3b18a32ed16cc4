"""All that only a GPU can show, in one call of at most ten minutes.

    python -m benchmarks.gpu_check --out runs/gpu_check

Needs PyTorch, NumPy and what ``benchmarks/gpu_queue.md`` lists; ``--packages`` takes those as a
folder of wheels or one tar archive of them unpacked. Parts run in order of worth, each in a
process of its own and within its time, so that one that fails or does not fit loses only itself.
Each part leaves ``<name>.json`` and ``<name>.log``; ``summary.md`` holds all tables. Run it again
with another ``--out`` and ``--parts`` for what was cut off. ``--try_out`` runs everything small on
a CPU.
"""

import argparse
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import read_figures, table
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from musicinfuser.tables import Row, markdown_table

ROOT = Path(__file__).parents[1]
# Of starting a process, before anything is measured; a part that has less is not begun.
LEAST_SECONDS = 15.0
TRY_OUT = (
    "--layers", "2", "--size", "small", "--frames", "7", "--height", "32", "--width", "32",
    "--device", "cpu",
)  # fmt: skip
TRY_OUT_LIMIT_S = 120.0


@dataclass(frozen=True)
class Part:
    """One measurement."""

    name: str
    module: str
    limit_s: float
    """When it is ended."""
    arguments: tuple[str, ...] = ()


def _train(profile: str, *variants: str) -> tuple[str, ...]:
    return ("--profile", profile, "--variants", ",".join(variants))


# In order of worth. The small ones first: they tell in seconds whether the rest can run.
PARTS = (
    Part("device", "device", 30),
    Part("train_4_layers", "train_step", 75,
         (*_train("base", "attention+compiled", "attention+eager", "full+eager", "stock"),
          "--layers", "4", "--steps", "10", "--warm_up", "2")),
    Part("train_80gb", "train_step", 170,
         (*_train("80gb", "profile", "full+compiled", "attention+eager"),
          "--steps", "8", "--warm_up", "3")),
    Part("train_40gb", "train_step", 90,
         (*_train("40gb", "profile"), "--steps", "5", "--warm_up", "3",
          "--memory_cap_gib", "37")),
    Part("train_24gb", "train_step", 90,
         (*_train("24gb", "profile"), "--steps", "5", "--warm_up", "3",
          "--memory_cap_gib", "22")),
    Part("sample", "sample", 80,
         ("--profile", "80gb", "--steps", "16", "--runs", "1")),
    # Uncompiled, which takes the most memory.
    Part("sample_24gb", "sample", 60,
         ("--profile", "24gb", "--frames", "145", "--steps", "3", "--runs", "1", "--no-compile",
          "--no_profile", "--memory_cap_gib", "22")),
    Part("vae", "vae", 60, ("--runs", "2")),
    # 5 of 22 GiB are the model's.
    Part("decode_24gb", "vae", 60,
         ("--frames", "145", "--runs", "1", "--uncounted", "--tile", "192",
          "--memory_cap_gib", "17")),
    Part("sample_eager", "sample", 60,
         ("--profile", "80gb", "--steps", "8", "--runs", "1", "--no-compile")),
)  # fmt: skip


def environment(packages: Path | None, folder: Path) -> dict[str, str]:
    """What a part's process sees: this repository, and the packages in front of all others."""
    paths = [str(ROOT)]
    if packages is not None:
        site = folder / "packages"
        unpack(packages, site)
        paths.insert(0, str(site))
    if os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}


def unpack(packages: Path, site: Path) -> None:
    """Wheels of a folder, or a tar archive of packages, as they are imported; else `UserError`."""
    site.mkdir(parents=True)
    wheels = sorted(packages.glob("*.whl")) if packages.is_dir() else []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    if packages.is_file():
        with tarfile.open(packages) as archive:
            archive.extractall(site, filter="data")
    elif not wheels:
        raise UserError(f"--packages names {packages}, which holds no wheels and is no archive.")


def run_part(
    part: Part, out: Path, *, seconds: float, env: dict[str, str], more: Sequence[str]
) -> dict[str, str]:
    """Run one part in a process of its own; its line of the summary."""
    command = [sys.executable, "-m", f"benchmarks.{part.module}", *part.arguments, *more]
    began = time.monotonic()
    with (out / f"{part.name}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--out", str(out / f"{part.name}.json")],
            cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(timeout=seconds)
            end = "done" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            # Compilers have processes of their own.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            end = f"ended after {seconds:.0f} s"
    return {"part": part.name, "end": end, "seconds": f"{time.monotonic() - began:.0f}"}


def summary(out: Path, ends: Sequence[Row]) -> str:
    """How the parts ended, and the tables of those that did."""
    lines = [markdown_table(ends)]
    for end in ends:
        path = out / f"{end['part']}.json"
        if path.is_file():
            result, figures = read_figures(path)
            lines.append(f"## {end['part']}\n\n{result['machine']['device']}\n\n{table(figures)}")
    return "\n".join(lines)


def run_parts(settings: argparse.Namespace) -> list[dict[str, str]]:
    """All parts that were asked for and for which there is time."""
    began, ends = time.monotonic(), []
    settings.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        env = environment(settings.packages, Path(folder))
        for part in PARTS:
            if settings.parts and part.name not in settings.parts:
                continue
            left = settings.minutes * 60 - (time.monotonic() - began)
            if left < LEAST_SECONDS:
                end = {"part": part.name, "end": "no time left", "seconds": "0"}
            else:
                limit_s = TRY_OUT_LIMIT_S if settings.try_out else part.limit_s
                end = run_part(
                    part, settings.out, seconds=min(limit_s, left), env=env,
                    more=_small(part) if settings.try_out else (),
                )  # fmt: skip
            print(f"{part.name}: {end['end']}, {end['seconds']} s", flush=True)
            ends.append(end)
            # After every part: what was measured stays, whatever happens to the next.
            write_text(settings.out / "summary.md", summary(settings.out, ends))
    return ends


def _small(part: Part) -> Sequence[str]:
    """Options that make a part small enough for a CPU; the last of an option counts."""
    sizes = {"device": TRY_OUT[-2:], "vae": TRY_OUT[2:]}
    # Uncompiled: a CPU's compiler takes longer than all else.
    quick = {
        "train_step": ("--variants", "profile+eager", "--steps", "2", "--warm_up", "1"),
        "sample": ("--steps", "2", "--no-compile"),
        "device": ("--repeats", "2"),
    }
    return (*sizes.get(part.module, TRY_OUT), *quick.get(part.module, ()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; 1 if one of them failed."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="a folder")
    options.add_argument("--packages", type=Path, help="wheels, or an archive of packages")
    options.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS])
    options.add_argument("--minutes", type=float, default=9.5, help="for everything")
    options.add_argument("--try_out", action="store_true", help="small, on the CPU")
    settings = options.parse_args(arguments)
    settings.out = settings.out.resolve()
    ends = run_parts(settings)
    print((settings.out / "summary.md").read_text())
    return 0 if all(end["end"] == "done" for end in ends) else 1


if __name__ == "__main__":
    sys.exit(main())
