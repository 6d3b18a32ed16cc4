"""The order of a check: settings, weights, clips, training, disk, memory."""

from jsonargparse import ArgumentParser, Namespace

from datamodules import CaptioningDataModule, DanceDataModule, EncodingDataModule
from lightning_modules import ClipEncoder, MusicInfuserModule
from musicinfuser.networks.backbone import DTYPES
from musicinfuser.tables import Row
from preflight import memory, training
from preflight.cache import check_cache
from preflight.captioning import check_captioning
from preflight.report import Report, table
from preflight.settings import Settings, build
from preflight.sources import check_growth, check_sources, lacks_parts
from preflight.weights import (
    CheckedPart,
    backbone_part,
    check_extras,
    check_parts,
    encoder_parts,
)

TOKENIZER_FILES = ("tokenizer_config.json", "spiece.model", "tokenizer.json")


def check(parser: ArgumentParser, config: Namespace) -> Report:
    """Look at everything a run needs, and start none of it.

    Headers, configs and folders are read; of weights only what tells one file from another (see
    `fingerprint_folder`), of videos only their containers. Nothing is written.

    Args:
        parser: The parser of the verbs, which builds the parts.
        config: What it parsed.

    Returns:
        The report, with all problems that could be found.
    """
    report = Report()
    settings = build(parser, config, report)
    if isinstance(settings.data, CaptioningDataModule):
        check_captioning(settings, settings.data, report)
    elif isinstance(settings.data, EncodingDataModule):
        _check_encoding(settings, settings.data, report)
    else:
        _check_training(settings, report)
    return report


def _check_encoding(settings: Settings, data: EncodingDataModule, report: Report) -> None:
    module = settings.model
    if not isinstance(module, ClipEncoder):
        report.add("weights", "not known before the problems are solved")
        check_sources(data, report)
        return
    spec = module.encoders.spec
    parts, rows = check_parts(encoder_parts(spec), report)
    _check_companions(parts, report)
    report.add("weights", table(rows))
    specs = check_sources(data, report)
    check_growth(data, module, specs, parts, report)
    if lacks_parts(module, parts):
        return
    value_bytes = DTYPES[spec.dtype].itemsize
    sizes = {name: float(_num_parameters(part)) for name, part in parts.items()}
    memory_rows = memory.encoding_rows(
        text_bytes=sizes["text_encoder"] * value_bytes,
        vae_bytes=sizes["vae"] * value_bytes,
        audio_bytes=sizes.get("audio_encoder", 0.0) * memory.FP32_BYTES,
        num_pixels=data.settings.num_frames * max(height * width for height, width in data.sizes),
        channels=parts["vae"].config["encoder_block_out_channels"][0],
        value_bytes=value_bytes,
        is_tiled=bool(spec.vae_tiling),
    )
    host = memory.host_bytes(
        weights=_encoder_bytes(parts, value_bytes), num_workers=data.num_workers
    )
    _add_memory("encoding", memory_rows, settings, host, report)


def _check_training(settings: Settings, report: Report) -> None:
    module = settings.model if isinstance(settings.model, MusicInfuserModule) else None
    makes_samples = training.check_requests(settings, report)
    data = settings.data
    generates = isinstance(data, DanceDataModule) and data.generation is not None
    parts = _check_weights(settings, report, needs_encoders=makes_samples or generates)
    if isinstance(data, DanceDataModule):
        check_cache(data, module.encoders if module else None, report)
        if generates:
            with report.collecting():
                data.setup("predict")
    is_built = module is not None and training.build_on_meta(module, report)
    training.check_resume(settings, module, report)
    if module is None or not is_built:
        report.add("training", "not known: see the problems, or another kind of model")
        return
    training.check_trained(module, settings, report)
    training.check_sizes(module, parts, report)
    training.check_disk(settings, module, report)
    if isinstance(data, DanceDataModule):
        value_bytes = DTYPES[module.encoders.spec.dtype].itemsize
        in_use = _encoder_bytes(parts, value_bytes) if makes_samples else 0.0
        rows = training.memory_rows(settings, module, data)
        host = training.host_bytes(settings, module, data, encoder_bytes=in_use)
        _add_memory("training", rows, settings, host, report)


def _check_weights(
    settings: Settings, report: Report, *, needs_encoders: bool
) -> dict[str, CheckedPart]:
    """Add the section on the weights of a training config."""
    parts: dict[str, CheckedPart] = {}
    rows: list[Row] = []
    backbone = settings.groups.get("backbone")
    if backbone is not None:
        part = backbone_part(backbone)
        found, found_rows = check_parts([part] if part else [], report)
        parts, rows = parts | found, rows + found_rows
    encoders = settings.groups.get("encoders")
    if encoders is not None:
        found, found_rows = check_parts(
            encoder_parts(encoders), report, may_be_absent=not needs_encoders
        )
        parts, rows = parts | found, rows + found_rows
    if needs_encoders:
        _check_companions(parts, report)
    report.add("weights", table(rows) or "not looked at for this kind of model")
    return parts


def _check_companions(parts: dict[str, CheckedPart], report: Report) -> None:
    """Note what encoders cannot do without besides their weights."""
    if "text_encoder" in parts:
        folder = parts["text_encoder"].folder.parent / "tokenizer"
        check_extras(folder, "tokenizer", TOKENIZER_FILES, report)
    if "audio_encoder" in parts:
        folder = parts["audio_encoder"].folder
        check_extras(folder, "audio_encoder", ("preprocessor_config.json",), report)


def _num_parameters(part: CheckedPart) -> int:
    return sum(p.numel() for p in part.skeleton.parameters())


def _encoder_bytes(parts: dict[str, CheckedPart], value_bytes: int) -> float:
    """wav2vec 2.0 is always held in fp32."""
    held = {"vae": value_bytes, "text_encoder": value_bytes, "audio_encoder": memory.FP32_BYTES}
    return float(sum(_num_parameters(p) * held[n] for n, p in parts.items() if n in held))


def _add_memory(
    what: str, rows: list[Row], settings: Settings, host: float, report: Report
) -> None:
    lines, problems = memory.compare(
        memory.total_bytes(rows),
        accelerator=settings.trainer["accelerator"],
        host=host,
        what=what,
    )
    for problem in problems:
        report.problem(problem)
    report.add("memory (an estimate)", table(rows), *lines)
