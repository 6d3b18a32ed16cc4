r"""The whole life of a run of Wan 2.1 1.3B or Wan 2.2 5B at full width and depth, on a CPU.

    python -m benchmarks.full_size --out benchmarks/results/full_size_wan_1b.json --folder runs/full
    python -m benchmarks.full_size --base wan_5b --out benchmarks/results/full_size_wan_5b.json \
        --folder runs/full_5b

The transformer has the published sizes and random weights; its other parts are small ones
(`benchmarks.random_parts`), and clips are short. Videos are encoded, a run is trained, another is
killed by SIGKILL and resumed, and its end is compared with the first to the bit; then its adapter
is exported, loaded by both pipelines, used for a video, and validated. The 5B has a smaller adapter
than the recipe's, and its videos begin with a picture.
Each part is a process of its own, whose seconds and memory are measured; starting is included. The
same command goes on after the last part that ended well. About 9 GB of disk for the 1.3B, 20 GB for
the 5B; exit code 1 if a part failed, or anything differs.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.full_size_run import ENCODE_CONFIGS, Life
from benchmarks.processes import PartError, peak_gib
from benchmarks.profiles import CONFIGS, read_profile
from benchmarks.random_parts import write_media, write_wan
from benchmarks.report import GIB, Figure, command_of, parser
from musicinfuser.atomic_files import write_text
from musicinfuser.label_files import read_json

PARTS_FILE = "parts.json"
LORA_FILE = "pytorch_lora_weights.safetensors"


def encode(life: Life) -> None:
    """The videos to a cache, by the command that does so."""
    media = life.media
    write_media(media)
    sources = ", ".join(
        f"{{class_path: datamodules.{kind}Dataset, init_args: {{root: {media / kind.lower()}"
        f"{', shots: null' if kind == 'YouTube' else ''}}}}}"
        for kind in ("AIST", "YouTube")
    )
    options: dict[str, Any] = {
        f"data.init_args.{name}": value for name, value in life.size.items()
    } | {
        "trainer.default_root_dir": life.folder / "encode",
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
        "model.init_args.encoders.mochi": life.weights,
        "model.init_args.encoders.audio": life.weights,
        "model.init_args.encoders.audio_subfolder": "audio_encoder",
        "data.init_args.cache_dir": life.folder / "cache",
        "data.init_args.num_workers": 0,
        "data.init_args.sources": f"[{sources}]",
    }
    names = ("encode", ENCODE_CONFIGS[life.settings.base])
    configs = [f"--config={CONFIGS / name}.yaml" for name in names]
    given = [f"--{name}={value}" for name, value in options.items()]
    life.run("encode", ["train.py", "predict", *configs, *given])


def fit(life: Life) -> None:
    """A run that is left alone; seconds of a step are those between its checkpoints."""
    steps = life.settings.steps
    shutil.rmtree(life.folder / "whole", ignore_errors=True)

    def times(process: subprocess.Popen) -> list[float]:
        began = time.monotonic()
        found = []
        for step in range(1, steps + 1):
            wait_for_step(process, life.checkpoints("whole"), step)
            found.append(time.monotonic() - began)
        return found

    found = life.run("fit", life.line("fit", "whole"), watch=times)
    life.parts["fit"] |= {
        "first_checkpoint_s": found[0],
        "step_s": (found[-1] - found[0]) / max(steps - 1, 1),
        "checkpoint_gib": life.last("whole").stat().st_size / GIB,
    }
    life.note("fit", **life.parts["fit"])


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    """Until the checkpoint of a step is there, or the process has ended (it stays to be waited)."""
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not (folder / f"{step:06d}.ckpt").is_file():
        if os.waitid(os.P_PID, process.pid, ended) is not None:
            return
        time.sleep(0.05)


def kill_and_resume(life: Life) -> None:
    """The same run, killed within a step and resumed by the same command.

    Raises:
        PartError: Its end is not that of the run that was left alone.
    """
    steps, command = life.settings.steps, life.line("fit", "killed")
    shutil.rmtree(life.folder / "killed", ignore_errors=True)

    def kill(process: subprocess.Popen) -> None:
        wait_for_step(process, life.checkpoints("killed"), steps - 1)
        # Within the next step, which on a machine that is less busy now may be much shorter.
        time.sleep(min(life.parts["fit"]["step_s"] / 2, 1.0))
        process.kill()

    life.run("killed", command, watch=kill, expected=-signal.SIGKILL)
    done = int(life.last("killed").stem)
    if done >= steps:
        raise PartError("kill: the run had ended before")
    life.run("resume", command)
    one, other = (
        torch.load(life.last(name), weights_only=True, mmap=True) for name in ("whole", "killed")
    )
    groups = ("global_step", "state_dict", "optimizer_states", "lr_schedulers")
    different = [name for group in groups for name in differences(one[group], other[group], group)]
    tensors = sum(1 for _ in leaves({group: one[group] for group in groups}))
    life.parts["resume"] |= {"killed_after_steps": done, "compared": tensors}
    life.note("resume", **life.parts["resume"], different=different[:10])
    if one["global_step"] != steps or different:
        raise PartError(f"resume: it differs in {different[:3]}")


def leaves(nested: Any, name: str = "") -> Any:
    """``(name, value)`` of everything in nested mappings and lists."""
    if isinstance(nested, Mapping):
        for key, value in nested.items():
            yield from leaves(value, f"{name}/{key}")
    elif isinstance(nested, list | tuple):
        for i, value in enumerate(nested):
            yield from leaves(value, f"{name}/{i}")
    else:
        yield name, nested


def differences(one: Any, other: Any, name: str) -> list[str]:
    """Names of values that two nested structures do not share to the bit."""
    mine, theirs = dict(leaves(one, name)), dict(leaves(other, name))

    def same(key: str) -> bool:
        a, b = mine[key], theirs[key]
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        return type(a) is type(b) and bool(a == b)

    shared = mine.keys() & theirs.keys()
    return sorted((mine.keys() ^ theirs.keys()) | {key for key in shared if not same(key)})


def export(life: Life) -> None:
    """The run's adapter as a folder."""
    target = life.folder / "adapter"
    source = str(life.last("whole"))
    command = ["-m", "musicinfuser.convert", "checkpoint", source, str(target)]
    life.run("export", command)
    files = {path: path.stat().st_size / GIB for path in target.rglob("*.safetensors")}
    sizes = {path.relative_to(target).as_posix(): size for path, size in files.items()}
    life.note("export", **life.parts["export"], files_gib=sizes)


def plain_lora(weights: Path, adapter: Path) -> dict[str, Any]:
    """The pipeline of diffusers with the exported LoRA; what it holds is what the file says."""
    from diffusers import WanPipeline
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    pipe = WanPipeline.from_pretrained(weights, dtype=torch.bfloat16)
    pipe.load_lora_weights(adapter, weight_name=LORA_FILE)
    loaded = get_peft_model_state_dict(pipe.transformer, adapter_name="default_0")
    stored = load_file(adapter / LORA_FILE)
    own = {name.removeprefix("transformer."): value for name, value in stored.items()}
    weights_of_lora = {name: value for name, value in own.items() if ".lora_" in name}
    different = [
        name for name, value in weights_of_lora.items()
        if name not in loaded or not torch.equal(loaded[name], value.to(loaded[name].dtype))
    ]  # fmt: skip
    if different or not weights_of_lora or len(loaded) != len(weights_of_lora):
        raise PartError(f"load_lora_weights: {len(different)} of {len(own)} differ or are missing")
    return {"tensors": len(loaded)}


def own_pipeline(
    weights: Path, adapter: Path, song: Path, size: dict[str, Any], picture: Path | None = None
) -> dict[str, Any]:
    """The adapter in our pipeline, and one step of it."""
    from musicinfuser import MusicInfuserWanPipeline

    pipe = MusicInfuserWanPipeline.from_pretrained(
        weights, adapter=adapter, audio_encoder=weights / "audio_encoder", dtype=torch.bfloat16
    )
    pipe.set_progress_bar_config(disable=True)
    loaded = peak_gib()
    frames = pipe(
        "a dancer", audio=str(song), num_inference_steps=1, output_type="pt",
        generator=torch.Generator().manual_seed(0), image=picture and str(picture), **size,
    ).frames  # fmt: skip
    if not torch.isfinite(frames).all() or frames.shape[1] != size["num_frames"]:
        raise PartError(f"the pipeline's frames are {tuple(frames.shape)}, or not finite")
    return {"peak_of_loading_gib": loaded, "shape": list(frames.shape)}


def load(life: Life) -> None:
    """The adapter in both pipelines."""
    adapter = life.folder / "adapter"
    life.call("load_lora_weights of diffusers", plain_lora, life.weights, adapter)
    life.call(
        "own pipeline", own_pipeline, life.weights, adapter, life.song, life.size, life.picture
    )


def predict(life: Life) -> None:
    """A video of four steps with guidance, by the command."""
    asked: dict[str, Any] = {"music": [str(life.song)], "prompts": ["a dancer"], "seeds": [0]}
    if life.picture is not None:
        asked["image"] = str(life.picture)
    option = f"--data.init_args.generation={json.dumps(asked)}"
    life.run("predict", life.line("predict", "whole", option))
    manifest = life.folder / "whole" / "videos" / "manifest.jsonl"
    (row,) = map(json.loads, manifest.read_text().splitlines())
    if row["num_frames"] != life.settings.frames:
        raise PartError(f"predict: a video of {row['num_frames']} frames")


def validate(life: Life) -> None:
    """One held-out clip, at every noise level, with its own and other music."""
    life.run("validate", life.line("validate", "whole"))


def write_parts(life: Life) -> None:
    """The random weights, in a process of their own."""
    shutil.rmtree(life.weights, ignore_errors=True)
    base, layers = life.settings.base, life.settings.layers
    life.call("random weights", write_wan, life.weights, base, layers)


LIFE = (write_parts, encode, fit, kill_and_resume, export, load, predict, validate)


NAMES = [part.__name__ for part in LIFE]


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """All of it, in order; what fails is named, and later parts are still tried."""
    settings.folder.mkdir(parents=True, exist_ok=True)
    life, failed = Life(settings, settings.folder.resolve()), []
    noted = life.folder / PARTS_FILE
    done = read_json(noted) if noted.is_file() else {}
    for part in LIFE:
        life.parts |= done.get(part.__name__, {})
        if part.__name__ in done or part.__name__ not in settings.parts:
            continue
        before = set(life.parts)
        try:
            part(life)
            done[part.__name__] = {
                name: found for name, found in life.parts.items() if name not in before
            }
            write_text(noted, json.dumps(done))
        except Exception as error:  # noqa: BLE001 - also what a part's own process raised
            failed.append(f"{part.__name__}: {type(error).__name__}: {error}")
            print(failed[-1], flush=True)
    precision = read_profile()["trainer"]["precision"]
    return figures_of(life.parts), {"parts": life.parts, "precision": precision, "failed": failed}


def figures_of(parts: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """What every part took, then what some of them found."""
    figures = []
    for name, found in parts.items():
        figures += [
            Figure(f"{name}: on the clock", found["seconds"], "s", note="starting included"),
            Figure(f"{name}: CPU", found.get("cpu_seconds"), "s"),
            Figure(f"{name}: peak memory", found["peak_gib"], "GiB", note="files mapped included"),
            Figure(f"{name}: its own, peak", found.get("own_gib"), "GiB"),
        ]
    for name, key, what, unit in (
        ("random weights", "file_gib", "the transformer's file", "GiB"),
        ("fit", "step_s", "fit: a step with its checkpoint", "s"),
        ("fit", "checkpoint_gib", "a checkpoint", "GiB"),
        ("resume", "compared", "values of the resumed run compared to the bit", ""),
    ):
        if key in parts.get(name, {}):
            figures.append(Figure(what, parts[name][key], unit))
    if "different" in parts.get("resume", {}):
        figures.append(Figure("values that differ", len(parts["resume"]["different"]), ""))
    for name, size in parts.get("export", {}).get("files_gib", {}).items():
        figures.append(Figure(f"adapter: {name}", size, "GiB"))
    return figures


OPTIONS = parser(
    __doc__,
    folder={"type": Path, "required": True, "help": "where the run lives"},
    parts={"nargs": "+", "choices": NAMES, "default": NAMES, "help": "of the life; all"},
    base={"choices": list(ENCODE_CONFIGS), "default": "wan_1b"},
    layers={"type": int, "help": "blocks of the transformer; all"}, frames=9, height=64, width=64,
    steps={"type": int, "default": 3, "help": "optimizer steps, two or more"},
    limit_gib={
        "type": float, "default": 12.0,
        "help": "a part with more memory of its own, without mapped files, is killed",
    },
)  # fmt: skip
main = command_of("full_size", OPTIONS, measure)

if __name__ == "__main__":
    sys.exit(main())
