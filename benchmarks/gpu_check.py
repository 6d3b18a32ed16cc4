"""All that only a GPU can show, in one call of at most ten minutes.

    python -m benchmarks.gpu_check --out runs/gpu_check

Needs PyTorch, NumPy and what ``benchmarks/gpu_queue.md`` lists; ``--packages`` takes those as a
folder of wheels or one tar archive of them unpacked. Parts run in order of worth, each in a
process of its own and within its time, so that one that fails or does not fit loses only itself.
It prints one table and writes ``gpu_check.json``, with all that its parts found; each part also
leaves ``<name>.json`` and ``<name>.log``, ``summary.md`` holds the tables of all. ``--try_out``
runs everything small on a CPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu_figures import figures_of
from benchmarks.report import Figure, read_figures, result_of, table, write_json
from musicinfuser.atomic_files import write_text
from musicinfuser.errors import UserError
from musicinfuser.tables import Row, markdown_table

ROOT = Path(__file__).parents[1]
# Of starting a process, before anything is measured; a part that has less is not begun.
LEAST_SECONDS = 15.0
# Before a part is ended, to write what it has.
WRITING_SECONDS = 8.0
# Frames that every family takes, and blocks of which one is conditioned on audio.
TRY_OUT = (
    "--layers", "3", "--size", "small", "--frames", "13", "--height", "32", "--width", "32",
    "--device", "cpu",
)  # fmt: skip
# Of a part and of all, for a machine that is busy with something else.
TRY_OUT_LIMIT_S, TRY_OUT_MINUTES = 600.0, 60.0
MINUTES = 9.6


@dataclass(frozen=True)
class Part:
    """One measurement."""

    name: str
    module: str
    limit_s: float
    """When it is ended."""
    arguments: tuple[str, ...] = ()
    title: str = ""
    """In the table."""
    planned: tuple[str, str] | None = None
    """Backbone and profile of the plan that its memory is compared with."""


def _train(profile: str, *variants: str, steps: int = 3) -> tuple[str, ...]:
    given = ("--profile", profile, "--variants", ",".join(variants), "--steps", str(steps))
    return (*given, "--warm_up", "2")


WAN = ("--layers", "30", "--frames", "81", "--width", "832")
# In order of worth. What may take the compiler's time comes last of a part's variants.
PARTS = (
    Part("device", "device", 25, ("--repeats", "5"), "device"),
    Part("mochi", "train_step", 145, _train("base", "stock", "attention+eager", "profile"),
         "Mochi, 73 frames", ("Mochi", "none")),
    Part("wan_1b", "train_step", 75,
         (*_train("wan_1b", "stock", "profile", "profile+compiled"), *WAN),
         "Wan 1.3B, 81 frames", ("Wan 1.3B", "none")),
    Part("mochi_24gb", "train_step", 80,
         (*_train("24gb", "profile+eager", "profile"), "--memory_cap_gib", "22"),
         "Mochi, 73 frames, 24gb", ("Mochi", "24gb")),
    Part("mochi_40gb", "train_step", 80,
         (*_train("40gb", "profile+eager", "profile"), "--memory_cap_gib", "37"),
         "Mochi, 73 frames, 40gb", ("Mochi", "40gb")),
    Part("wan_1b_8gb", "train_step", 60,
         (*_train("wan_1b+8gb", "profile+eager"), *WAN, "--memory_cap_gib", "7"),
         "Wan 1.3B, 81 frames, 8gb", ("Wan 1.3B", "8gb")),
    Part("sample_mochi", "sample", 50,
         ("--profile", "80gb", "--steps", "8", "--runs", "1", "--no-compile"),
         "Mochi, 73 frames, sampling uncompiled"),
    Part("sample_wan_1b", "sample", 30,
         ("--profile", "wan_1b", "--steps", "8", "--runs", "1", *WAN),
         "Wan 1.3B, 81 frames, sampling uncompiled"),
    Part("decode", "vae", 25, ("--runs", "1", "--halves", "decode"), "Mochi, 73 frames, VAE"),
    # If there is time left. Without compiling, which takes the most memory.
    Part("sample_24gb", "sample", 60,
         ("--profile", "24gb", "--frames", "145", "--steps", "3", "--runs", "1", "--no-compile",
          "--no_profile", "--memory_cap_gib", "22"),
         "Mochi, 145 frames, 24gb, sampling uncompiled"),
    Part("decode_wan_1b", "vae", 40,
         ("--runs", "1", "--halves", "decode", "--family", "wan", *WAN[2:]),
         "Wan 1.3B, 81 frames, VAE"),
    # 5 of 22 GiB are the model's.
    Part("decode_24gb", "vae", 60,
         ("--frames", "145", "--runs", "1", "--tile", "192", "--halves", "decode",
          "--memory_cap_gib", "17"), "Mochi, 145 frames, 24gb, VAE"),
    Part("sample_compiled", "sample", 90,
         ("--profile", "80gb", "--steps", "8", "--runs", "1"),
         "Mochi, 73 frames, sampling compiled"),
)  # fmt: skip
SURE = PARTS[:-4]
"""Those whose times fit into one call."""


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
            if code != 0:
                log.flush()
                end += f": {_last_line(out / f'{part.name}.log')}"
        except subprocess.TimeoutExpired:
            # Compilers have processes of their own.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            end = f"ended after {seconds:.0f} s"
    return {"part": part.name, "end": end, "seconds": f"{time.monotonic() - began:.0f}"}


def _last_line(path: Path) -> str:
    """What an error says of itself."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its log is empty"


def summary(out: Path, ends: Sequence[Row]) -> str:
    """How the parts ended, and the tables of those that did."""
    lines = [markdown_table(ends)]
    for end in ends:
        path = out / f"{end['part']}.json"
        if path.is_file():
            result, figures = read_figures(path)
            lines.append(f"## {end['part']}\n\n{result['machine']['device']}\n\n{table(figures)}")
    return "\n".join(lines)


def collect(out: Path, ends: Sequence[Mapping[str, str]], settings: argparse.Namespace) -> str:
    """Write what there is by now into one file; its table."""
    parts, figures, results = {part.name: part for part in PARTS}, list[Figure](), {}
    for end in ends:
        part, path = parts[end["part"]], out / f"{end['part']}.json"
        result = json.loads(path.read_text()) if path.is_file() else None
        figures += figures_of(part.title or part.name, end["end"], result, part.planned)
        if result is not None:
            results[part.name] = result
    found_on = next((result["machine"] for result in results.values()), None)
    details = {"ends": list(ends), "parts": results}
    result = result_of("gpu_check", figures, settings=settings, details=details, found_on=found_on)
    write_json(out / "gpu_check.json", result)
    write_text(out / "summary.md", summary(out, ends))
    return table(figures)


def run_parts(settings: argparse.Namespace) -> tuple[list[dict[str, str]], str]:
    """All parts that were asked for and for which there is time; how they ended, and the table."""
    began, ends, shown = time.monotonic(), list[dict[str, str]](), ""
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
                seconds = min(TRY_OUT_LIMIT_S if settings.try_out else part.limit_s, left)
                end = run_part(
                    part,
                    settings.out,
                    seconds=seconds,
                    env=env,
                    more=_more(part, seconds, settings),
                )
            print(f"{part.name}: {end['end']}, {end['seconds']} s", flush=True)
            ends.append(end)
            # After every part: what was measured stays, whatever happens to the next.
            shown = collect(settings.out, ends, settings)
    return ends, shown


def _more(part: Part, seconds: float, settings: argparse.Namespace) -> Sequence[str]:
    """Options beside a part's own; the last of an option counts."""
    ends_itself = part.module == "train_step"
    limit = ("--seconds", str(max(seconds - WRITING_SECONDS, 1))) if ends_itself else ()
    return (*limit, *(_small(part) if settings.try_out else ()))


def _small(part: Part) -> Sequence[str]:
    """Options that make a part small enough for a CPU."""
    sizes = {"device": TRY_OUT[-2:], "vae": TRY_OUT[2:]}
    quick = {"sample": ("--steps", "2", "--no-compile"), "device": ("--repeats", "2")}
    if part.module == "train_step":
        # Uncompiled: a CPU's compiler takes longer than all else.
        variants = part.arguments[part.arguments.index("--variants") + 1].split(",")
        eager = ["profile+eager" if v == "profile" else v for v in variants if "compiled" not in v]
        named = ",".join(dict.fromkeys(eager))
        quick["train_step"] = ("--variants", named, "--steps", "1", "--warm_up", "1")
    # What profiles takes longest on a CPU; of each module once.
    is_first = part == next(other for other in PARTS if other.module == part.module)
    profiles = part.module in ("train_step", "sample") and not is_first
    once = ("--no_profile",) if profiles else ()
    return (*sizes.get(part.module, TRY_OUT), *quick.get(part.module, ()), *once)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; 1 if one of them failed."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="a folder")
    options.add_argument("--packages", type=Path, help="wheels, or an archive of packages")
    options.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS])
    options.add_argument("--minutes", type=float, help=f"for everything, by default {MINUTES}")
    options.add_argument("--try_out", action="store_true", help="small, on the CPU")
    settings = options.parse_args(arguments)
    settings.out = settings.out.resolve()
    settings.minutes = settings.minutes or (TRY_OUT_MINUTES if settings.try_out else MINUTES)
    ends, shown = run_parts(settings)
    if settings.try_out:
        print("A rehearsal with small models: its numbers say nothing of full size.\n")
    print(shown)
    return 0 if all(end["end"] == "done" for end in ends) else 1


if __name__ == "__main__":
    sys.exit(main())
