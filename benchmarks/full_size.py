"""The whole life of a run of Wan 2.1 1.3B at full width and depth, with random weights, on a CPU.

    python -m benchmarks.full_size --out benchmarks/results/full_size_wan_1b.json --folder runs/full

The transformer has the published sizes; VAE, text encoder and audio encoder are small ones of the
real classes, whose outputs are as wide as the real ones'. Clips are short. Videos are encoded, a
run is trained, another is killed by SIGKILL and resumed, and its end is compared with the first to
the bit; then its adapter is exported, loaded by both pipelines, used for a video, and validated.
Each part is a process of its own, whose seconds on the clock and largest memory are measured;
starting is included. The same command goes on after the last part that ended well. About 9 GB of
disk; exit code 1 if a part failed, or anything differs.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks.profiles import CONFIGS, read_profile
from benchmarks.report import GIB, Figure, command_of, parser
from musicinfuser.atomic_files import write_text
from musicinfuser.label_files import read_json
from musicinfuser.networks.backbone import BackboneSpec, build_backbone
from musicinfuser.networks.backbones.wan import WAN_1B_CONFIG

AUDIO_WIDTH = 768  # configs/base.yaml: wav2vec 2.0 base
VAE = {"base_dim": 8, "z_dim": 16, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
TEXT = {
    "vocab_size": 384, "d_model": WAN_1B_CONFIG["text_dim"], "d_kv": 64, "d_ff": 128,
    "num_layers": 1, "num_heads": 2, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.0,
}  # fmt: skip
AUDIO = {
    "hidden_size": AUDIO_WIDTH, "num_hidden_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 192, "conv_dim": [48] * 7, "num_conv_pos_embeddings": 64,
    "num_conv_pos_embedding_groups": 8,
}  # fmt: skip
PARTS_FILE = "parts.json"
LORA_FILE = "pytorch_lora_weights.safetensors"
# One for training; two, of different held-out music, for validation.
AIST_FILES = (
    "gBR_sBM_c01_d04_mBR1_ch03", "gBR_sBM_c01_d04_mBR0_ch02", "gHO_sBM_c01_d20_mHO5_ch02",
)  # fmt: skip


class PartError(Exception):
    """A part of the life ended otherwise than it should."""


@dataclass
class Life:
    """Where a run lives, and what its parts took."""

    settings: argparse.Namespace
    folder: Path
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each part: ``seconds``, ``peak_gib`` and what else it found."""

    @property
    def weights(self) -> Path:
        """Folder of the random parts."""
        return self.folder / "weights"

    @property
    def song(self) -> Path:
        """A file with music that no training hears."""
        return self.folder / "media" / "aist" / f"{AIST_FILES[1]}.mp4"

    def note(self, part: str, **found: Any) -> None:
        """Keep what a part took, and say it."""
        self.parts[part] = found
        print(f"{part}: {found}", flush=True)

    def run(
        self, part: str, command: list[str], *, watch: Callable[..., Any] | None = None,
        expected: int = 0,
    ) -> Any:  # fmt: skip
        """Run a command to its end and measure it.

        Args:
            part: Its name among the parts, and of its log.
            command: Arguments of Python.
            watch: Called with the process while it runs; what it returns is returned.
            expected: Exit code; of a signal, less than 0.

        Raises:
            PartError: It ended with another code.
        """
        path = self.folder / f"{part.replace(' ', '_')}.log"
        with path.open("w") as log:
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, *command], cwd=CONFIGS.parent, stdout=log,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
            found = watch(process) if watch is not None else None
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds, cpu_seconds = time.monotonic() - began, used.ru_utime + used.ru_stime
        peak = used.ru_maxrss * 1024 / GIB
        self.note(part, seconds=seconds, cpu_seconds=cpu_seconds, peak_gib=peak)
        if process.returncode != expected:
            raise PartError(f"{part}: exit code {process.returncode}; see {path.name}")
        return found

    def call(self, part: str, function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        """The same for a function, in a process of its own."""
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawned) as pool:
            began = time.monotonic()
            found = pool.submit(_with_use, function, *arguments).result()
        self.note(part, seconds=time.monotonic() - began, **found)

    def config(self) -> Path:
        """An overlay of all that is not the recipe's: folders, the clips' size, the steps."""
        steps, size = self.settings.steps, _size(self.settings)
        saver = {
            "filename": "{step:06d}", "every_n_train_steps": 1, "save_top_k": 1, "save_last": False,
            "dirpath": "${trainer.default_root_dir}/checkpoints", "auto_insert_metric_name": False,
            "enable_version_counter": False,
        }  # fmt: skip
        weights = str(self.weights)
        overlay = {
            "trainer": {
                "max_steps": steps, "accelerator": "cpu", "devices": 1, "logger": False,
                "val_check_interval": None, "limit_val_batches": 1, "enable_progress_bar": False,
                "callbacks": [
                    {"class_path": "callbacks.AtomicCheckpoint", "init_args": saver},
                    {"class_path": "callbacks.FiniteTraining"},
                ],
            },
            "model": {"init_args": {
                "backbone": {"pretrained": weights},
                # A third of the depth, as the recipe's; of two blocks that would be none.
                "layers": {"num_layers": max(self.settings.layers // 3, 1)},
                "encoders": {"audio": weights, "audio_subfolder": "audio_encoder"},
                "sampling": {"num_steps": 4},
            }},
            "data": {"init_args": size | {
                "cache_dir": str(self.folder / "cache"), "num_workers": 0,
            }},
            "sample_generation": {"every_n_steps": 0},
        }  # fmt: skip
        path = self.folder / "overlay.yaml"
        write_text(path, yaml.safe_dump(overlay, sort_keys=False))
        return path

    def line(self, verb: str, name: str, *more: str) -> list[str]:
        """The command of train.py for the run ``name``."""
        configs = (CONFIGS / "base.yaml", CONFIGS / "wan_1b.yaml", self.config())
        root = self.folder / name
        return [
            "train.py", verb, *(f"--config={path}" for path in configs),
            f"--trainer.default_root_dir={root}", *more,
        ]  # fmt: skip

    def last(self, name: str) -> Path:
        """The last checkpoint of a run that has one."""
        return max(self.checkpoints(name).glob("[0-9]*.ckpt"))

    def checkpoints(self, name: str) -> Path:
        """The folder of a run's checkpoints."""
        return self.folder / name / "checkpoints"


def _size(settings: argparse.Namespace) -> dict[str, int]:
    names = {"num_frames": "frames", "height": "height", "width": "width"}
    return {name: getattr(settings, option) for name, option in names.items()}


def _with_use(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a function found, with what its process has used."""
    found = function(*arguments)
    return found | {"cpu_seconds": time.process_time(), "peak_gib": _peak_gib()}


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def write_weights(folder: Path, num_layers: int) -> dict[str, Any]:
    """Random parts in the layout of diffusers' `WanPipeline`; the transformer in bf16."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
    from transformers import (
        ByT5Tokenizer,
        UMT5Config,
        UMT5EncoderModel,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
    )

    architecture = folder / "architecture.json"
    write_text(architecture, json.dumps(WAN_1B_CONFIG | {"num_layers": num_layers}))
    transformer = build_backbone(BackboneSpec(config=str(architecture), family="wan"))
    transformer.save_pretrained(folder / "transformer")
    torch.manual_seed(0)
    AutoencoderKLWan(**VAE).save_pretrained(folder / "vae")
    UMT5EncoderModel(UMT5Config(**TEXT)).save_pretrained(folder / "text_encoder")
    ByT5Tokenizer().save_pretrained(folder / "tokenizer")
    Wav2Vec2Model(Wav2Vec2Config(**AUDIO)).save_pretrained(folder / "audio_encoder")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "audio_encoder")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "WanPipeline", "boundary_ratio": None, "expand_timesteps": False,
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "ByT5Tokenizer"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "transformer_2": [None, None],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }  # fmt: skip
    write_text(folder / "model_index.json", json.dumps(index))
    size = sum(path.stat().st_size for path in (folder / "transformer").iterdir())
    parameters = sum(parameter.numel() for parameter in transformer.parameters())
    return {"file_gib": size / GIB, "parameters": parameters}


def write_media(folder: Path) -> None:
    """Videos of noise with tones, as many as a training and a validation need."""
    from musicinfuser.media.video_writing import write_video

    names = [f"aist/{name}" for name in AIST_FILES] + ["youtube/noise"]
    for i, name in enumerate(names):
        stream = torch.Generator().manual_seed(i)
        frames = torch.randint(256, (36, 9, 16, 3), generator=stream, dtype=torch.uint8)
        frames = frames.repeat_interleave(40, dim=1).repeat_interleave(40, dim=2)
        tone = 0.3 * torch.sin(torch.arange(57_600) * (0.03 + 0.01 * i))
        path = folder / f"{name}.mp4"
        write_video(path, frames, fps=30.0, audio=tone, audio_rate_hz=48_000)
        if name.startswith("youtube"):
            write_text(path.with_suffix(".txt"), "noise")


def encode(life: Life) -> None:
    """The videos to a cache, by the command that does so."""
    media = life.folder / "media"
    write_media(media)
    sources = ", ".join(
        f"{{class_path: datamodules.{kind}Dataset, init_args: {{root: {media / kind.lower()}"
        f"{', shots: null' if kind == 'YouTube' else ''}}}}}"
        for kind in ("AIST", "YouTube")
    )
    options: dict[str, Any] = {
        f"data.init_args.{name}": value for name, value in _size(life.settings).items()
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
    configs = [f"--config={CONFIGS / name}.yaml" for name in ("encode", "wan_encode")]
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
        time.sleep(life.parts["fit"]["step_s"] / 2)
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


def own_pipeline(weights: Path, adapter: Path, song: Path, size: dict[str, Any]) -> dict[str, Any]:
    """The adapter in our pipeline, and one step of it."""
    from musicinfuser import MusicInfuserWanPipeline

    pipe = MusicInfuserWanPipeline.from_pretrained(
        weights, adapter=adapter, audio_encoder=weights / "audio_encoder", dtype=torch.bfloat16
    )
    pipe.set_progress_bar_config(disable=True)
    loaded = _peak_gib()
    frames = pipe(
        "a dancer", audio=str(song), num_inference_steps=1, output_type="pt",
        generator=torch.Generator().manual_seed(0), **size,
    ).frames  # fmt: skip
    if not torch.isfinite(frames).all() or frames.shape[1] != size["num_frames"]:
        raise PartError(f"the pipeline's frames are {tuple(frames.shape)}, or not finite")
    return {"peak_of_loading_gib": loaded, "shape": list(frames.shape)}


def load(life: Life) -> None:
    """The adapter in both pipelines."""
    adapter = life.folder / "adapter"
    life.call("load_lora_weights of diffusers", plain_lora, life.weights, adapter)
    size = _size(life.settings)
    life.call("own pipeline", own_pipeline, life.weights, adapter, life.song, size)


def predict(life: Life) -> None:
    """A video of four steps with guidance, by the command."""
    asked = {"music": [str(life.song)], "prompts": ["a dancer"], "seeds": [0]}
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
    life.weights.mkdir()
    life.call("random weights", write_weights, life.weights, life.settings.layers)


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
    figures = []
    for name, found in life.parts.items():
        figures += [
            Figure(f"{name}: on the clock", found["seconds"], "s", note="starting included"),
            Figure(f"{name}: CPU", found.get("cpu_seconds"), "s"),
            Figure(f"{name}: peak RAM", found["peak_gib"], "GiB"),
        ]
    for name, key, what, unit in (
        ("random weights", "file_gib", "the transformer's file", "GiB"),
        ("fit", "step_s", "fit: a step with its checkpoint", "s"),
        ("fit", "checkpoint_gib", "a checkpoint", "GiB"),
        ("resume", "compared", "values of the resumed run compared to the bit", ""),
    ):
        if key in life.parts.get(name, {}):
            figures.append(Figure(what, life.parts[name][key], unit))
    if "different" in life.parts.get("resume", {}):
        figures.append(Figure("values that differ", len(life.parts["resume"]["different"]), ""))
    for name, size in life.parts.get("export", {}).get("files_gib", {}).items():
        figures.append(Figure(f"adapter: {name}", size, "GiB"))
    precision = read_profile()["trainer"]["precision"]
    return figures, {"parts": life.parts, "precision": precision, "failed": failed}


OPTIONS = parser(
    __doc__,
    folder={"type": Path, "required": True, "help": "where the run lives"},
    parts={"nargs": "+", "choices": NAMES, "default": NAMES, "help": "of the life; all"},
    layers=WAN_1B_CONFIG["num_layers"], frames=9, height=64, width=64,
    steps={"type": int, "default": 3, "help": "optimizer steps, two or more"},
)  # fmt: skip
main = command_of("full_size", OPTIONS, measure)

if __name__ == "__main__":
    sys.exit(main())
