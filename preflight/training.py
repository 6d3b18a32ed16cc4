"""What a run will train, from where it starts, and what it needs for that."""

import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from callbacks import AdapterEMA, AtomicCheckpoint, SampleGeneration
from callbacks.atomic_checkpoint import SPLIT_KEY, check_samples
from callbacks.checkpoint_files import checkpoints_in, newest_of
from callbacks.run_folder import RunFolderError, check_start
from callbacks.sample_generation import NO_SAMPLES
from datamodules import DanceDataModule
from datamodules.generation_requests import held_out_requests
from lightning_modules import MusicInfuserModule
from lightning_modules.counterfactual import check_batch
from lightning_modules.validation import GAP_KEY, gap_text
from musicinfuser.adapters.initial import load_adapter
from musicinfuser.clip_size import ClipShape, num_latent_frames, num_visual_tokens
from musicinfuser.errors import UserError, looked_for
from musicinfuser.media.latents import CacheError, read_headers
from musicinfuser.networks.lora import is_lora_name
from musicinfuser.networks.transformers_audio import TransformersAudio
from musicinfuser.networks.work import Work
from musicinfuser.safetensors_files import read_header
from musicinfuser.setting_checks import check_number
from musicinfuser.tables import Row
from preflight import memory
from preflight.disk import check_checkpoints
from preflight.profiles import add_profiles
from preflight.report import Report, Settings, table
from preflight.weights import CheckedPart

CHECKPOINT_NAMES = ("best", "hpc")
# Blocks and steps of the small world's runs whose loss no other music changed.
UNLEARNED = (6, 300)


def build_on_meta(module: MusicInfuserModule, report: Report) -> bool:
    """Give a module its model, names and shapes only; whether that went well."""
    adapter, module.init_adapter = module.init_adapter, None
    # Nothing runs here, and torch's compiler takes a while to load.
    memory, module.memory = module.memory, replace(module.memory, compile_blocks=False)
    with report.collecting(), torch.device("meta"):
        module.configure_model()
        if not module.trainable_names():
            report.problem("nothing to train: no ZICA layers and no LoRA; set model.layers.")
    module.memory = memory
    if adapter is not None:
        _check_adapter(Path(adapter), module, report)
    return module.model is not None


def check_agreement(module: MusicInfuserModule, settings: Settings, report: Report) -> None:
    """Note what a run refuses of settings that are right by themselves."""
    trainer, data = settings.trainer, settings.data
    for sentence in module.disagreements(data, trainer["precision"]):
        report.problem(sentence)
    with report.collecting():
        accumulation = trainer["accumulate_grad_batches"]
        check_number("trainer.accumulate_grad_batches", accumulation, at_least=1)
    with report.collecting():
        module.optimization.check(num_steps=trainer["max_steps"])
        module.optimization.check_accumulation(accumulation)
    if isinstance(data, DanceDataModule):
        with report.collecting():
            check_batch(module.objective.counterfactual, data.batch_size, data.training_pieces)
    for callback in trainer["callbacks"] or []:
        if isinstance(callback, AdapterEMA):
            with report.collecting():
                callback.check(module)


def _check_adapter(path: Path, module: MusicInfuserModule, report: Report) -> None:
    """What `configure_model` asks of an adapter; of its weights next to nothing is read."""
    if not path.exists():
        report.problem(f"model.init_adapter names {path}, which does not exist{looked_for(path)}.")
        return
    with report.collecting():
        if path.suffix == ".safetensors":
            read_header(path)
        if module.model is not None:
            load_adapter(path, module.model, module.model_settings(), module.origin)


def check_trained(module: MusicInfuserModule, settings: Settings, report: Report) -> None:
    """Add the section on what is trained and what is frozen, and on samples meanwhile."""
    parts = {"zica": "ZICA", "audio_projector": "audio projector"}
    groups: dict[str, list[nn.Parameter]] = {
        name: [] for name in ("ZICA", "LoRA", "audio projector", "backbone")
    }
    for name, parameter in module.adapted.named_parameters():
        other = "LoRA" if is_lora_name(name) else "backbone"
        groups[parts.get(name.split(".")[0], other)].append(parameter)
    rows: list[Row] = [
        {
            "part": name,
            "": "trained" if any(p.requires_grad for p in parameters) else "frozen",
            "tensors": len(parameters),
            "parameters": sum(p.numel() for p in parameters),
        }
        for name, parameters in groups.items()
    ]
    layers = ", ".join(map(str, module.adapted.layers)) or "none"
    number = memory.num_trained(module.adapted)
    total = f"{number:,} parameters are trained; audio after blocks: {layers}"
    report.add(
        "training", table(rows), total, _unlearned(module, settings), *held_out_samples(settings)
    )


def _unlearned(module: MusicInfuserModule, settings: Settings) -> str:
    """A warning where a run is within what was measured to learn nothing; empty elsewhere."""
    spec, depth = module.zica_spec, module.adapted.backbone.config.num_layers
    blocks, steps = UNLEARNED
    features = module.encoders.spec.audio_features
    data, window = settings.data, spec.frame_window
    if isinstance(data, DanceDataModule) and window is not None:
        # As wide as the clip it is none.
        num_latents = num_latent_frames(_largest(data)[0], geometry=data.geometry)
        window = window if window < num_latents - 1 else None
    is_measured = (
        features in (TransformersAudio.features, [TransformersAudio.features])
        and spec.form == "cross_attention"
        and window is None
    )
    is_short = depth <= blocks and settings.trainer["max_steps"] <= steps
    is_fresh = settings.groups.get("init_adapter") is None
    if not module.adapted.layers or spec.positions != "none":
        return ""
    if not (is_measured and is_short and is_fresh):
        return ""
    return (
        f"warning: zica.positions is none; {blocks} blocks trained for {steps} steps so learned "
        "nothing from the audio (small_world/experiments/results/zica_time.md): set aligned, or "
        "train longer."
    )


def check_sizes(module: MusicInfuserModule, parts: dict[str, CheckedPart], report: Report) -> None:
    """Note sizes of the encoders that do not fit the model's."""
    kind, backbone = module.family, module.adapted.backbone.config
    expected = {
        "audio_encoder": ("hidden_size", module.audio_width, "model.audio_width"),
        "text_encoder": (
            "d_model",
            backbone[kind.text_width_key],
            f"the backbone's {kind.text_width_key}",
        ),
        "vae": (kind.vae.channels_key, backbone["in_channels"], "the backbone's in_channels"),
    }
    spec = module.encoders.spec
    one_state = spec.audio_layer not in ("all", "beats")
    if (spec.audio_features, one_state) != (TransformersAudio.features, True):
        del expected["audio_encoder"]
        audio = module.encoders.audio
        # Of an encoder of the Hub that is not on this machine nobody knows the width.
        is_known = all(part.identity().width is not None for part in audio.parts)
        if is_known and module.audio_width != audio.width:
            named = " and ".join(part.features for part in audio.parts)
            report.problem(
                f"model.audio_width is {module.audio_width}, but features of {named} have "
                f"{audio.width} channels; set it to {audio.width}."
            )
    for name, (key, value, what) in expected.items():
        found = parts[name].config.get(key) if name in parts else value
        if found != value:
            report.problem(
                f"{name} has the {key} {found}, but {what} is {value}; give parts that fit."
            )


def training_sizes(
    settings: Settings, module: MusicInfuserModule, data: DanceDataModule
) -> memory.TrainingSizes:
    """What the memory of a run depends on; the module has its model on the meta device."""
    tokens = num_visual_tokens(*_largest(data), geometry=data.geometry)
    return memory.TrainingSizes.of(
        module.adapted,
        num_tokens=data.batch_size * tokens,
        num_averages=_num_averages(settings),
        first_given=module.objective.first_frame_probability > 0,
        optimizer_bytes=module.optimization.state_bytes,
        num_shares=_num_devices(settings) if module.shard_backbone else 1,
    )


def _largest(data: DanceDataModule) -> ClipShape:
    """The shape of the most tokens."""
    return max(data.shapes, key=lambda shape: num_visual_tokens(*shape, geometry=data.geometry))


def _num_devices(settings: Settings) -> int:
    """Of one node."""
    asked = settings.trainer["devices"]
    if isinstance(asked, list):
        return len(asked)
    number = int(asked) if str(asked).lstrip("-").isdigit() else -1
    return number if number > 0 else max(len(memory.gpu_bytes()), 1)


def check_memory(
    settings: Settings,
    module: MusicInfuserModule,
    data: DanceDataModule,
    report: Report,
    *,
    encoder_bytes: float,
) -> None:
    """Add the section on memory; of the encoders, those count that are loaded during training."""
    sizes, accelerator = training_sizes(settings, module, data), settings.trainer["accelerator"]

    def host_of(sizes: memory.TrainingSizes) -> float:
        # What a CPU trains with is on the device already.
        weights = encoder_bytes + (memory.loaded_bytes(sizes) if accelerator != "cpu" else 0)
        return memory.host_bytes(weights=weights, num_workers=data.num_workers)

    rows, host = memory.training_rows(sizes), host_of(sizes)
    memory.add_memory("training", rows, report, accelerator=accelerator, host=host)
    if module.backbone_spec.quantize is not None:
        report.add(
            "profiles", "not counted beside model.backbone.quantize; take it out to see them"
        )
    elif accelerator != "cpu" and sizes.num_shares == 1:
        text_tokens = module.encoders.spec.max_text_tokens
        work = Work.of(module.adapted, *_largest(data), text_tokens=text_tokens)
        num_clips = data.batch_size * settings.trainer["accumulate_grad_batches"]
        add_profiles(
            module.adapted, sizes, work, report, num_clips, configs=settings.configs,
            host_of=host_of,
        )  # fmt: skip


def check_disk(settings: Settings, module: MusicInfuserModule, report: Report) -> None:
    """Add the section on the disk that checkpoints fill."""
    lines = check_checkpoints(
        settings.trainer["callbacks"] or [],
        num_trained=memory.num_trained(module.adapted),
        num_averages=_num_averages(settings),
        max_steps=settings.trainer["max_steps"],
        root=settings.trainer["default_root_dir"] or ".",
        report=report,
    )
    report.add("disk", *lines)


def _num_averages(settings: Settings) -> int:
    return sum(isinstance(c, AdapterEMA) for c in settings.trainer["callbacks"] or [])


def check_requests(settings: Settings, report: Report) -> bool:
    """Note tracks of samples that are missing; whether the run makes samples of named requests."""
    samples = settings.callbacks.get("sample_generation")
    if not isinstance(samples, SampleGeneration) or not samples.every_n_steps:
        return False
    for problem in samples.missing_tracks():
        report.problem(problem)
    return bool(samples.requests)


def held_out_samples(settings: Settings) -> list[str]:
    """A line on samples of the cache's held-out clips; none where the run asks for none."""
    samples = settings.callbacks.get("sample_generation")
    if not isinstance(samples, SampleGeneration) or samples.requests:
        return []
    if not 0 < samples.every_n_steps <= settings.trainer["max_steps"]:
        return []
    try:
        reason = (
            None
            if settings.model is None
            else SampleGeneration.obstacle(settings.model, settings.data)
        )
        if reason is None and isinstance(settings.data, DanceDataModule):
            headers = read_headers(settings.data.cache_dir)
            requests = held_out_requests(headers, samples.held_out_clips)
            tracks = ", ".join(f"{c.track} from {c.track_offset_seconds:g} s" for c in requests)
            return [f"samples every {samples.every_n_steps} steps of held-out clips: {tracks}"]
    except CacheError as error:
        reason = str(error)
    return [NO_SAMPLES.format(reason or "there is no cache of clips")]


def check_resume(settings: Settings, module: MusicInfuserModule | None, report: Report) -> None:
    """Add the section on the checkpoint a run starts from, and compare it with the config."""
    if settings.trainer["max_steps"] < 1:
        report.problem("trainer.max_steps must be set: a run is counted in optimizer steps.")
    path, checkpoint, notes = _start(settings, report)
    try:
        check_start(_folders(settings), settings.ckpt_path)
    except RunFolderError as error:
        notes.append(f"fit is refused there: {error}")
    if path is None:
        report.add("start", "from step 0", *notes)
        return
    step = checkpoint.get("global_step")
    last = settings.trainer["max_steps"]
    if step is not None and 0 < last <= step:
        notes.append("nothing is left to train; raise trainer.max_steps to train on.")
    if (gap := checkpoint.get(GAP_KEY)) is not None:
        notes.append(f"at step {gap['step']} other music changed the loss by {gap_text(gap)}")
    report.add("start", f"from step {step} of {last}: {path}", *notes)
    batch_size = getattr(settings.data, "batch_size", None)
    if batch_size is not None:
        is_one = settings.trainer["accelerator"] == "cpu" and settings.trainer["devices"] == "auto"
        num_processes = 1 if is_one else _num_devices(settings) * settings.trainer["num_nodes"]
        num_batches = settings.trainer["accumulate_grad_batches"] * num_processes
        with report.collecting():
            check_samples(checkpoint.get(SPLIT_KEY, {}), batch_size * num_batches)
    if module is not None and module.model is not None:
        # All that `on_load_checkpoint` asks of a trainer.
        module.trainer = SimpleNamespace(training=True, ckpt_path=path)  # type: ignore[assignment]
        with report.collecting():
            module.on_load_checkpoint(checkpoint)


def _start(settings: Settings, report: Report) -> tuple[Path | None, dict[str, Any], list[str]]:
    """The checkpoint a run starts from, its contents, and a line per file that was passed over."""
    name = settings.ckpt_path
    if name is None or name in CHECKPOINT_NAMES or "://" in name:
        return None, {}, []
    path, notes = Path(name), []
    with report.collecting():
        if name == "last" or path.is_dir():
            paths = _last_checkpoints(settings) if name == "last" else checkpoints_in(path)
            newest, faults = newest_of(paths)
            notes = [f"passed over: {path} ({reason})" for path, reason in faults.items()]
            if newest is None and faults:
                raise UserError("no checkpoint can be read, only damaged ones are left; move them.")
            if newest is None:
                return None, {}, notes
            path = newest
        if not path.exists():
            raise UserError(f"--ckpt_path names {name}, which does not exist{looked_for(name)}.")
        return path, read_checkpoint(path), notes
    return None, {}, notes


def _folders(settings: Settings) -> list[Path]:
    callbacks = settings.trainer["callbacks"] or []
    whole = [c for c in callbacks if isinstance(c, AtomicCheckpoint) and c.is_local]
    return [Path(str(callback.dirpath)) for callback in whole]


def _last_checkpoints(settings: Settings) -> list[Path]:
    """The files among which ``ckpt_path: last`` chooses."""
    root = settings.trainer["default_root_dir"] or "."
    paths = set(checkpoints_in(*_folders(settings)))
    for callback in settings.trainer["callbacks"] or []:
        if isinstance(callback, ModelCheckpoint) and not isinstance(callback, AtomicCheckpoint):
            paths.update(Path(callback.dirpath or root).glob("last*.ckpt"))
    return sorted(paths)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint with names, shapes and settings, but no numbers; `UserError` if it is none."""
    try:
        return torch.load(path, map_location="meta", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise UserError(
            f"{path} cannot be read as a checkpoint ({reason}); name another one."
        ) from error
