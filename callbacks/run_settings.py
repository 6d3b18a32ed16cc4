"""RunSettings: what else a run was made with, and what of it is changed when it is resumed."""

import hashlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.beta_annealing import BetaAnnealing
from callbacks.ema import AdapterEMA
from lightning_modules.learning_rate import follow_schedule
from musicinfuser.fingerprint import fingerprint_folder
from musicinfuser.pretrained_sources import find_local
from musicinfuser.setting_checks import check_number
from musicinfuser.setting_differences import differences, flatten

RUN_KEY = "musicinfuser_run"
MAX_STEPS = "trainer.max_steps"
# Options by the attribute that holds them. Others either change no number of a training or, in
# another place, are refused.
MODEL = (
    *("seed", "objective", "noise_shift", "train_text_encoder"),
    *("moving_weight", "temporal_weight", "kl_weight"),
)
DATA = (
    *("seed", "ratio", "caption_dropout", "music_dropout", "both_dropout"),
    *("base_prompt_probability", "training_share", "num_frames", "sizes", "fps"),
)
CACHE = ("vae", "text_encoder", "audio_encoder", "audio_channel", "dtype")
_EARLIER = {
    **{
        f"model.optimizer.{name}": f"model.optimizer.init_args.{name}"
        for name in ("lr", "weight_decay", "betas", "eps")
    },
    "model.optimizer.warmup_steps": "model.schedule.init_args.warmup_steps",
    "model.optimizer.schedule": "model.schedule.init_args.decay",
}
"""Names of settings in checkpoints of earlier versions, and theirs of today."""
CALLBACKS: dict[str, tuple[type[L.Callback], tuple[str, ...]]] = {
    "beta_annealing": (BetaAnnealing, ("initial", "half_life_steps", "mode", "num_steps")),
    "AdapterEMA": (AdapterEMA, ("decay", "start_step", "every_n_steps")),
}


class RunSettings(L.Callback):
    """Keeps in each checkpoint what `run_settings` finds; says at a resume what is another now.

    What is refused is not said here: settings of the model and its optimizer. An option that is
    younger than the checkpoint had its default. A checkpoint that keeps nothing of this is resumed
    without a word, but for a learning rate that leaps.
    """

    def before_run(self, cli: LightningCLI) -> None:
        """Refuse an option that Lightning takes and fails on later."""
        accumulation = cli.trainer.accumulate_grad_batches
        check_number("trainer.accumulate_grad_batches", accumulation, at_least=1)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the settings."""
        checkpoint[RUN_KEY] = run_settings(trainer, pl_module)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Name what is changed, one line each, before the first step."""
        if trainer.state.fn == "fit":
            for line in changes(trainer, pl_module, checkpoint):
                rank_zero_warn(line)


def changes(
    trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]
) -> Iterator[str]:
    """What a run that goes on from a checkpoint does otherwise, one sentence each.

    Where ``trainer.max_steps`` is another, the checkpoint's learning rate is replaced by that of
    this run's schedule: the first step would be made with the old one.
    """
    stored = {_EARLIER.get(key, key): value for key, value in checkpoint.get(RUN_KEY, {}).items()}
    now, defaults = run_settings(trainer, module), _defaults(trainer, module) if stored else {}
    asked = {key: now.get(key) for key in stored.keys() | (defaults.keys() & now.keys())}
    for difference in differences(asked, stored, defaults=defaults):
        yield f"resumed with another setting: {difference}."
    optimization = getattr(module, "optimization", None)
    if optimization is None or checkpoint["global_step"] >= trainer.max_steps > 0:
        return
    step, schedule = checkpoint["global_step"], optimization.schedule_of(trainer.max_steps)
    if schedule is not None and (rates := follow_schedule(checkpoint, schedule)):
        yield (
            f"resumed with another learning rate: it goes on at {rates[1]:.3g}, as this run's "
            f"schedule of {trainer.max_steps} steps has it at step {step}, not at {rates[0]:.3g}, "
            "where the checkpoint's was."
        )


def run_settings(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
    """What decides a training besides the settings of the model and its optimizer, by name.

    Plain values, which a checkpoint can hold. The samples of a step are not among them: another
    number is refused (`AtomicCheckpoint`), and how they are split changes the order of a sum.
    """
    data: Any = getattr(trainer, "datamodule", None)
    algorithm = trainer.gradient_clip_algorithm
    found: dict[str, Any] = {
        "trainer.precision": trainer.precision,
        "trainer.gradient_clip_val": trainer.gradient_clip_val,
        "trainer.gradient_clip_algorithm": algorithm and str(algorithm.value),
    }
    optimization = getattr(module, "optimization", None)
    if optimization is not None:
        found |= {f"model.{group}": named for group, named in optimization.settings.items()}
        if optimization.depends_on_length:
            found[MAX_STEPS] = trainer.max_steps
    found |= _of(module, "model", MODEL)
    found |= _of(data, "data", DATA)
    backbone = getattr(module, "backbone_spec", None)
    if backbone is not None:
        name = backbone.pretrained
        folder = find_local(name, backbone.subfolder) if name else None
        found["model.backbone"] = fingerprint_folder(folder) if folder else name
        found["model.backbone.dtype"] = backbone.dtype
        found["model.backbone.quantize"] = backbone.quantize
    found |= _of(getattr(data, "recipe", None), "cache", CACHE) | _clips(data)
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for name, (kind, options) in CALLBACKS.items():
        callback = next((c for c in callbacks if isinstance(c, kind)), None)
        found |= {f"{name}.{option}": getattr(callback, option, None) for option in options}
    return flatten(found)


def _defaults(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
    """What options of the model and the data have where they are not set, by the names above."""
    holders = (module, "model", MODEL), (getattr(trainer, "datamodule", None), "data", DATA)
    found: dict[str, Any] = {}
    for holder, prefix, names in holders:
        options = {} if holder is None else inspect.signature(type(holder)).parameters
        found |= {
            f"{prefix}.{name}": _plain(options[name].default)
            for name in names
            if name in options and options[name].default is not inspect.Parameter.empty
        }
    return flatten(found)


def _of(holder: object, prefix: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Attributes that are there; groups of options as dicts."""
    values: dict[str, Any] = {n: getattr(holder, n) for n in names if hasattr(holder, n)}
    return {f"{prefix}.{name}": _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """A group of options as a dict, the groups within it too, as checkpoints hold plain values."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _clips(data: object) -> dict[str, str]:
    """How many clips of each source are trained on, and a mark that changes with them."""
    by_source = getattr(getattr(data, "training_clips", None), "clips", None)
    if not isinstance(by_source, Mapping):
        return {}
    found = {}
    for source, clips in by_source.items():
        named = "\n".join(f"{clip.clip_id}\t{clip.caption}" for clip in clips)
        mark = hashlib.blake2b(named.encode(errors="replace"), digest_size=4).hexdigest()
        found[f"clips of {source}"] = f"{len(clips)} (mark {mark})"
    return found
