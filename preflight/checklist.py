"""The order of a check: settings, weights, clips, training, disk, memory."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace

from datamodules import CaptioningDataModule, DanceDataModule, EncodingDataModule
from lightning_modules import ClipEncoder, MusicInfuserModule
from lightning_modules.settings import MaskSpec
from musicinfuser.networks.backbone import DTYPES
from musicinfuser.networks.backbones import family_named
from musicinfuser.networks.encoders import EncodersSpec
from preflight import memory, training
from preflight.cache import check_cache
from preflight.report import Report, Settings, build, table
from preflight.sources import check_captioning, check_growth, check_sources, lacks_parts
from preflight.weights import (
    CheckedPart,
    backbone_parts,
    check_audio_packages,
    check_companions,
    check_parts,
    encoder_parts,
)


def check(parser: ArgumentParser, config: Namespace, *, configs: Sequence[str] = ()) -> Report:
    """Look at everything a run needs, and start none of it.

    Headers, configs and folders are read; of weights only what tells one file from another (see
    `fingerprint_folder`), of videos only their containers. Nothing is written.
    The parser builds the parts of the config that it parsed, from the files ``configs``, which the
    command for this machine names. The report has all problems that could be found.
    """
    report = Report()
    settings = build(parser, config, report)
    settings.configs = configs
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
    check_companions(parts, report)
    check_audio_packages(spec, report)
    report.add("weights", table(rows))
    specs = check_sources(data, report)
    check_growth(data, module, specs, parts, report)
    if lacks_parts(module, parts):
        return
    sizes, vae = _encoder_bytes(parts, spec), module.encoders.family.vae
    memory_rows = memory.encoding_rows(
        text_bytes=sizes["text_encoder"],
        vae_bytes=sizes["vae"],
        audio_bytes=sizes.get("audio_encoder", 0.0),
        shapes=[(int(min(n, vae.encoded_frames)), h, w) for n, h, w in data.shapes],
        channels=vae.first_channels(parts["vae"].config),
        value_bytes=(vae.dtype or DTYPES[spec.dtype]).itemsize,
        is_tiled=bool(spec.vae_tiling),
    )
    host = memory.host_bytes(weights=sum(sizes.values()), num_workers=data.num_workers)
    accelerator = settings.trainer["accelerator"]
    memory.add_memory("encoding", memory_rows, report, accelerator=accelerator, host=host)


def _check_training(settings: Settings, report: Report) -> None:
    module = settings.model if isinstance(settings.model, MusicInfuserModule) else None
    makes_samples = training.check_requests(settings, report)
    data = settings.data
    if module is not None:
        training.check_agreement(module, settings, report)
    generates = isinstance(data, DanceDataModule) and data.generation is not None
    parts = _check_weights(settings, report, needs_encoders=makes_samples or generates)
    if isinstance(data, DanceDataModule):
        mask = module.objective.mask if module else MaskSpec()
        check_cache(data, module.encoders if module else None, report, mask=mask)
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
        sizes = _encoder_bytes(parts, module.encoders.spec) if makes_samples else {}
        training.check_memory(settings, module, data, report, encoder_bytes=sum(sizes.values()))


def _check_weights(
    settings: Settings, report: Report, *, needs_encoders: bool
) -> dict[str, CheckedPart]:
    """Add the section on the weights of a training config."""
    backbone, encoders = settings.groups.get("backbone"), settings.groups.get("encoders")
    parts, rows = check_parts(backbone_parts(backbone) if backbone else [], report)
    more, more_rows = check_parts(
        encoder_parts(encoders) if encoders else [], report, may_be_absent=not needs_encoders
    )
    parts |= more
    if needs_encoders:
        check_companions(parts, report)
        if encoders:
            check_audio_packages(encoders, report)
    report.add("weights", table(rows + more_rows) or "not looked at for this kind of model")
    return parts


def _encoder_bytes(parts: dict[str, CheckedPart], spec: EncodersSpec) -> dict[str, float]:
    """Of each encoder; the audio encoder is always held in fp32, as some VAEs are."""
    value_bytes = DTYPES[spec.dtype].itemsize
    vae_bytes = (family_named(spec.family).vae.dtype or DTYPES[spec.dtype]).itemsize
    held = {"vae": vae_bytes, "text_encoder": value_bytes, "audio_encoder": memory.FP32_BYTES}
    return {
        name: float(held[name] * sum(p.numel() for p in part.skeleton.parameters()))
        for name, part in parts.items()
        if name in held
    }
