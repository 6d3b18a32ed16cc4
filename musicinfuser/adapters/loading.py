"""An adapter as a folder for the pipeline: what is in it, and whether it belongs to a base."""

import warnings
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoFeatureExtractor

from musicinfuser.adapters.folder import LORA_FILE
from musicinfuser.errors import UserError
from musicinfuser.networks.audio_encoder import BEATS, AudioLayer
from musicinfuser.networks.backbones import backbone_of, families_of
from musicinfuser.networks.combined_audio import audio_encoder_again
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.networks.origin import Origin, frozen_weights
from musicinfuser.networks.transformers_audio import WAV2VEC_HUB_ID, TransformersAudio
from musicinfuser.pretrained_sources import load_pretrained, part_config
from musicinfuser.safetensors_files import read_header

LORA_NAME = "musicinfuser"


class AdapterMismatchError(UserError):
    """An adapter and a base, or an adapter and an audio encoder, do not belong together."""


def adapter_parts(
    adapter: str, *, base: str | None, audio_encoder: Any = None, feature_extractor: Any = None
) -> dict[str, Any]:
    """The components of the pipeline that come with an adapter.

    Args:
        adapter: Folder or Hub id with ``zica`` in it and, optionally, ``audio_encoder``.
        base: Folder or Hub id of the base it is for; None where there is none in diffusers' layout,
            so that nothing is compared with it.
        audio_encoder: A wav2vec 2.0 or its like; or its folder or Hub id; None takes the
            adapter's own, or the one its config names, or, where it names none, that in the base's
            folder if it may be the one it was trained with, or else that one itself (the authors',
            if it does not say). Of combined features it is the part that is such an encoder. Not
            used by an adapter of other features, such as log-mel spectrograms.
        feature_extractor: What goes with it; None is read from the same place.

    Raises:
        MissingWeightsError: Something is not there; says what.
        AdapterMismatchError: The base is of another family, as far as its config is here.
    """
    zica = load_pretrained(MusicAdapter, adapter, "zica")
    for kind in families_of(part_config(base, "transformer")) if base else ():
        if problems := _of_another_family(zica, kind.family):
            raise _mismatch(problems)
    _complete(zica, adapter)
    trained = zica.trained_with
    now = frozen_weights(base) if base else {}
    if other := trained.other_weights(Origin(trained.audio, now)):
        warnings.warn(
            f"{adapter} was trained with other frozen weights than those of {base} "
            f"({'; '.join(other.values())}); what it makes of these is not what it was trained to "
            "make.",
            stacklevel=2,
        )
    heard = trained.audio.of_transformers
    if heard is None:
        return {"zica": zica, "audio_encoder": None, "feature_extractor": None}
    named, subfolder = zica.config.audio_encoder, None
    source = named or heard.encoder or WAV2VEC_HUB_ID
    if isinstance(audio_encoder, str | Path):
        source = str(audio_encoder)
    elif Path(adapter, "audio_encoder").is_dir():
        source, subfolder = adapter, "audio_encoder"
    elif named is None and base and Path(base, "audio_encoder").is_dir():
        beside = TransformersAudio(base, "audio_encoder", layer=heard.layer)
        if not heard.differs_from(beside.identity()):
            source, subfolder = base, "audio_encoder"
    if not isinstance(audio_encoder, nn.Module):
        with_head: AudioLayer = BEATS if heard.layer == BEATS else None
        audio_encoder = TransformersAudio(source, subfolder, layer=with_head).module
    if feature_extractor is None:
        feature_extractor = load_pretrained(AutoFeatureExtractor, source, subfolder)
    return {
        "zica": zica,
        "audio_encoder": audio_encoder,
        "feature_extractor": feature_extractor,
    }


def _complete(zica: MusicAdapter, adapter: str) -> None:
    """Note in an adapter that does not say its audio features what lies beside it says."""
    if zica.config.origin is not None or not Path(adapter).is_dir():
        return
    origin = Origin.assumed(Path(adapter, "zica"))
    if not origin.stored() and Path(adapter, "audio_encoder").is_dir():
        audio = TransformersAudio(adapter, "audio_encoder").identity()
        origin = Origin(audio, assumed_from=f"{adapter}/audio_encoder")
    if origin.stored():
        warnings.warn(
            f"{adapter} does not say which audio features it was trained on; according to "
            f"{origin.assumed_from} they are {origin.audio}.",
            stacklevel=3,
        )
        zica.register_to_config(**origin.stored())


def check_belongs(
    zica: MusicAdapter,
    transformer: Any,
    audio_encoder: Any,
    feature_extractor: Any = None,
) -> None:
    """Refuse an adapter of another base, or one that would get other features than in training.

    Raises:
        AdapterMismatchError: Widths, blocks or audio encoders differ; says which.
    """
    config = transformer.config
    check_sizes(
        zica, audio_encoder, feature_extractor,
        family=backbone_of(transformer).family,
        width=config.num_attention_heads * config.attention_head_dim,
        num_layers=config.num_layers,
    )  # fmt: skip


def check_sizes(
    zica: MusicAdapter,
    audio_encoder: Any,
    feature_extractor: Any = None,
    *,
    family: str,
    width: int,
    num_layers: int,
) -> None:
    """`check_belongs` for a base that is no transformer of diffusers: of a family, by its sizes.

    Raises:
        AdapterMismatchError: Widths, blocks or audio encoders differ; says which.
    """
    ours, trained = zica.config, zica.trained_with
    problems = _of_another_family(zica, family)
    if ours.width != width:
        problems.append(f"it is {ours.width} channels wide, the base {width}")
    if ours.backbone_layers not in (None, num_layers):
        problems.append(
            f"its audio enters after blocks {list(ours.layers)} of {ours.backbone_layers}, the "
            f"base has {num_layers}"
        )
    now, heard = None, trained.audio.of_transformers
    if audio_encoder is not None and heard is not None:
        layer, depth = heard.layer, audio_encoder.config.num_hidden_layers
        given = TransformersAudio(layer=layer, model=audio_encoder, extractor=feature_extractor)
        now = audio_encoder_again(trained.audio, given=given)
        if now.width != ours.audio_width:
            problems.append(
                f"it takes audio features of {ours.audio_width} channels, the audio encoder gives "
                f"{now.width}"
            )
        if isinstance(layer, int) and layer > depth:
            problems.append(f"it takes layer {layer}, the audio encoder has {depth}")
    if problems:
        raise _mismatch(problems)
    if now is None:
        return
    path, remedy = ours.get("_name_or_path"), "load it with the audio encoder it was trained with"
    for note in trained.notes(
        Origin(now.identity()), path=path or "the adapter", refuse=AdapterMismatchError,
        remedy=remedy,
    ):  # fmt: skip
        warnings.warn(note, stacklevel=2)


def _of_another_family(zica: MusicAdapter, family: str) -> list[str]:
    same = zica.family == family
    return [] if same else [f"it is of {zica.family}, the base of {family}"]


def _mismatch(problems: list[str]) -> AdapterMismatchError:
    return AdapterMismatchError(
        f"the adapter and the base do not belong together: {'; '.join(problems)}; load the "
        "adapter with the base it was trained on."
    )


def load_lora(pipeline: Any, source: str, *, name: str = LORA_NAME) -> None:
    """Load the LoRA of a folder or Hub id into a pipeline; of a folder without one, nothing.

    Raises:
        AdapterMismatchError: The base has no such layers, or other shapes; says which.
        WeightsFileError: The file cannot be read.
    """
    path = Path(source, LORA_FILE)
    if path.is_file():
        _check_lora(path, pipeline.transformer)
    elif Path(source).is_dir():
        return
    pipeline.load_lora_weights(source, weight_name=LORA_FILE, adapter_name=name)


def _check_lora(path: Path, transformer: nn.Module) -> None:
    """Refuse a LoRA of another base before anything is changed."""
    shapes = {name: stored.shape for name, stored in read_header(path).items()}
    layers = {n: m for n, m in transformer.named_modules() if isinstance(m, nn.Linear)}
    problems = []
    for name, shape in sorted(shapes.items()):
        layer_name, _, part = name.removeprefix("transformer.").partition(".lora_")
        if part not in ("A.weight", "B.weight"):
            continue
        # A layer that has LoRA already keeps its own weights one level down.
        layer = layers.get(layer_name) or layers.get(f"{layer_name}.base_layer")
        if layer is None:
            problems.append(f"the base has no {layer_name}")
        elif part.startswith("A") and shape[1] != layer.in_features:
            problems.append(f"{name} is {shape}, but {layer_name} takes {layer.in_features}")
        elif part.startswith("B") and shape[0] != layer.out_features:
            problems.append(f"{name} is {shape}, but {layer_name} gives {layer.out_features}")
    if problems:
        raise AdapterMismatchError(
            f"{path} and the base do not belong together: {len(problems)} of {len(shapes)} tensors "
            f"do not fit, e.g. {problems[0]}; load it with the base it was trained on."
        )
