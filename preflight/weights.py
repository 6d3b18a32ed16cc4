"""The pretrained parts: what their headers say against what their configs ask for."""

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from musicinfuser.errors import looked_for
from musicinfuser.label_files import read_json
from musicinfuser.networks.backbone import BackboneSpec
from musicinfuser.networks.backbones import family_named
from musicinfuser.networks.combined_audio import audio_encoder_of
from musicinfuser.networks.encoders import EncodersSpec
from musicinfuser.networks.transformers_audio import TransformersAudio
from musicinfuser.networks.weights_fingerprint import UNUSED, bare_names
from musicinfuser.pretrained_sources import (
    HOW_TO_GET,
    MissingWeightsError,
    find_local,
    looks_local,
    missing_folder,
)
from musicinfuser.safetensors_files import StoredTensor, WeightsFileError, read_header
from musicinfuser.tables import Row
from preflight.report import Report, count, gigabytes

# Types that are turned into the configured one when weights are read.
FLOAT_TYPES = {"F64", "F32", "F16", "BF16"}
AUDIO_ENCODER = "audio_encoder"
"""Name of the first that features are made by; others have their number behind it."""
# Part -> name of what belongs to it, its folder beside the part's, and files of which it has one.
COMPANIONS = {
    "text_encoder": (
        "tokenizer", "tokenizer", ("tokenizer_config.json", "spiece.model", "tokenizer.json")
    ),
    AUDIO_ENCODER: (AUDIO_ENCODER, None, ("preprocessor_config.json",)),
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A pretrained part and how it is built from its config."""

    name: str
    source: str
    subfolder: str | None
    stem: str
    """Name of its weights without ending."""
    build: Callable[[dict[str, Any]], nn.Module]


@dataclass(frozen=True)
class CheckedPart:
    """A part whose config was read."""

    folder: Path
    config: dict[str, Any]
    skeleton: nn.Module
    """On the meta device."""


def backbone_parts(spec: BackboneSpec) -> list[Part]:
    """The transformer; nothing where its weights are random."""
    if spec.pretrained is None:
        return []
    build = family_named(spec.family).model_class.from_config
    name = "diffusion_pytorch_model"
    return [Part("transformer", spec.pretrained, spec.subfolder, name, build)]


def encoder_parts(spec: EncodersSpec) -> list[Part]:
    """VAE, T5 and, where its features are used, wav2vec 2.0 or its like."""
    kind = family_named(spec.family)
    build_vae = kind.vae.model_class.from_config
    parts = [
        Part("vae", spec.mochi, "vae", "diffusion_pytorch_model", build_vae),
        Part(
            "text_encoder", spec.mochi, "text_encoder", "model",
            lambda config: kind.text_encoder_class(kind.text_config_class.from_dict(config)),
        ),
    ]  # fmt: skip
    found = [p for p in audio_encoder_of(asdict(spec)).parts if isinstance(p, TransformersAudio)]
    for number, audio in enumerate(found, 1):
        name = AUDIO_ENCODER if number == 1 else f"{AUDIO_ENCODER} {number}"
        parts.append(Part(name, audio.source, audio.subfolder, "model", audio.skeleton))
    return parts


def check_audio_packages(spec: EncodersSpec, report: Report) -> None:
    """Note what audio encoders of other packages than transformers lack."""
    for part in audio_encoder_of(asdict(spec)).parts:
        with report.collecting():
            part.require()


def check_parts(
    parts: Iterable[Part], report: Report, *, may_be_absent: bool = False
) -> tuple[dict[str, CheckedPart], list[Row]]:
    """Compare each part's files with its architecture; what differs becomes a problem.

    With ``may_be_absent`` a Hub id that is not on this machine is none: nothing will read it.

    Returns:
        The parts that were found, and one row per part.
    """
    checked: dict[str, CheckedPart] = {}
    rows: list[Row] = []
    for part in parts:
        row: dict[str, Any] = {"part": part.name, "where": part.source}
        row |= dict.fromkeys(("tensors", "parameters", "GB", "type", "names and shapes"))
        rows.append(row)
        before = len(report.problems)
        with report.collecting():
            folder = find_local(part.source, part.subfolder)
            if folder is None and may_be_absent and not looks_local(part.source):
                row["names and shapes"] = "not here, not needed"
                continue
            folder = folder or part_folder(part.name, part.source, part.subfolder)
            row["where"] = str(folder)
            config = read_json(folder / "config.json")
            with torch.device("meta"):
                skeleton = part.build(config)
            checked[part.name] = CheckedPart(folder, config, skeleton)
            _compare(part, folder, skeleton, row, report)
        if len(report.problems) > before:
            row["names and shapes"] = "see problems"
    return checked, rows


def check_companions(parts: dict[str, CheckedPart], report: Report) -> None:
    """Note what encoders cannot do without besides their weights."""
    for part, checked in parts.items():
        name, place, files = COMPANIONS.get(part.split(" ")[0], (part, None, ()))
        if not files:
            continue
        folder = checked.folder
        folder = folder.parent / place if place else folder
        if not any((folder / file).is_file() for file in files):
            report.problem(
                f"{name}: {folder} holds none of {', '.join(files)}; get the part again."
            )


def part_folder(name: str, source: str, subfolder: str | None = None) -> Path:
    """The folder of a pretrained part on this machine; `MissingWeightsError` if not here."""
    folder = find_local(source, subfolder)
    if folder is not None:
        return folder
    if looks_local(source):
        raise missing_folder(name, source, subfolder)
    hint = HOW_TO_GET.format(source=source, folder=source.split("/")[-1]).rstrip(".")
    raise MissingWeightsError(
        f"{name}: {source} is not on this machine. {hint}{looked_for(source)}."
    )


def weights_files(folder: str | Path, stem: str) -> list[Path]:
    """The files that hold a model: those its index names, or the one called ``stem``.

    Args:
        folder: Folder of the model.
        stem: ``diffusion_pytorch_model`` (diffusers) or ``model`` (transformers).

    Raises:
        WeightsFileError: There is neither, or the index cannot be read.
    """
    folder = Path(folder)
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsFileError(
                f"{index} is not an index of weights ({error}); get it again."
            ) from error
        return [folder / name for name in names]
    if single.is_file():
        return [single]
    raise WeightsFileError(f"{folder} holds no weights: neither {single.name} nor {index.name}.")


def _compare(
    part: Part, folder: Path, skeleton: nn.Module, row: dict[str, Any], report: Report
) -> None:
    if not any(folder.glob(f"{part.stem}*.safetensors*")) and any(folder.glob("*.bin")):
        row["names and shapes"] = "not read: a .bin file"
        return
    stored: dict[str, StoredTensor] = {}
    for path in weights_files(folder, part.stem):
        with report.collecting():
            stored |= read_header(path)
    row["tensors"], row["parameters"] = len(stored), sum(t.num_values for t in stored.values())
    row["GB"] = gigabytes(sum(t.num_bytes for t in stored.values()))
    types = sorted({t.dtype for t in stored.values()})
    row["type"] = ", ".join(types)
    row["names and shapes"] = "as expected"
    foreign = [t for t in types if t not in FLOAT_TYPES]
    if foreign:
        report.problem(
            f"{part.name}: {folder} holds weights of type {', '.join(foreign)}; give them in bf16, "
            "fp16 or fp32."
        )
    prefix = ""
    if part.name.startswith(AUDIO_ENCODER):  # of one with a head, whose head may not be used
        prefix = f"{getattr(skeleton, 'base_model_prefix', '')}."
        if any(name.startswith(prefix) for name in skeleton.state_dict()):
            prefix = ""
    for sentence in differences(prefix, skeleton, stored):
        report.problem(f"{part.name}: {sentence} in {folder}; give the part its config is of.")


def differences(prefix: str, skeleton: nn.Module, stored: dict[str, StoredTensor]) -> list[str]:
    """How stored names and shapes differ from those of a model: missing, unknown, other shapes."""
    found = {bare: stored[name].shape for bare, name in bare_names(stored, prefix).items()}
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in skeleton.state_dict().items()
        if name not in UNUSED
    }
    tied = set(getattr(skeleton, "_tied_weights_keys", None) or ())
    ignored = getattr(skeleton, "_keys_to_ignore_on_load_unexpected", None) or ()
    missing = sorted(n for n in expected if n not in found and n not in tied)
    unknown = sorted(
        n for n in found if n not in expected and not any(re.search(p, n) for p in ignored)
    )
    reshaped = sorted(n for n in expected if found.get(n, expected[n]) != expected[n])
    sentences = []
    if missing:
        sentences.append(f"{count(len(missing), 'tensor')} missing, e.g. {missing[0]},")
    if unknown:
        sentences.append(f"{count(len(unknown), 'unknown tensor')}, e.g. {unknown[0]},")
    if reshaped:
        name = reshaped[0]
        sentences.append(
            f"{count(len(reshaped), 'tensor')} of another shape, e.g. {name} {found[name]}, not "
            f"{expected[name]},"
        )
    return sentences
