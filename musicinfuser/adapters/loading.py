"""An adapter as a folder: what is in it, and whether it belongs to a base."""

import warnings
from pathlib import Path
from typing import Any

from diffusers import MochiTransformer3DModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoFeatureExtractor

from musicinfuser.errors import UserError
from musicinfuser.networks.encoders import WAV2VEC_HUB_ID, load_audio_encoder
from musicinfuser.networks.music_adapter import MusicAdapter
from musicinfuser.networks.origin import (
    LOG_MEL,
    AudioIdentity,
    Origin,
    frozen_weights,
    hearing_problems,
)
from musicinfuser.pretrained_sources import (
    HOW_TO_GET,
    MissingWeightsError,
    load_pretrained,
    looks_local,
    missing_folder,
)

LORA_FILE = "pytorch_lora_weights.safetensors"
LORA_NAME = "musicinfuser"


class AdapterMismatchError(UserError):
    """An adapter and a base, or an adapter and an audio encoder, do not belong together."""


def adapter_parts(
    adapter: str, *, base: str, audio_encoder: Any = None, feature_extractor: Any = None
) -> dict[str, Any]:
    """The components of the pipeline that come with an adapter.

    Args:
        adapter: Folder or Hub id with ``zica`` in it and, optionally, ``audio_encoder``.
        base: Folder or Hub id of the Mochi it is for.
        audio_encoder: A wav2vec 2.0 or its like; or its folder or Hub id; None takes the
            adapter's own, or the one its config names, or, where it names none, that in the base's
            folder if it may be the one it was trained with, or else that one itself (the authors',
            if it does not say). Not used by an adapter that hears log-mel spectrograms.
        feature_extractor: What goes with it; None is read from the same place.

    Raises:
        MissingWeightsError: Something is not there; says what.
    """
    zica = load_pretrained(MusicAdapter, adapter, "zica")
    _complete(zica, adapter)
    trained = zica.trained_with
    if other := trained.other_weights(Origin(trained.audio, frozen_weights(base))):
        warnings.warn(
            f"{adapter} was trained with other frozen weights than those of {base} "
            f"({'; '.join(other.values())}); what it makes of these is not what it was trained to "
            "make.",
            stacklevel=2,
        )
    if trained.audio.features == LOG_MEL:
        return {"zica": zica, "audio_encoder": None, "feature_extractor": None}
    named, subfolder = zica.config.audio_encoder, None
    source = named or trained.audio.encoder or WAV2VEC_HUB_ID
    if isinstance(audio_encoder, str | Path):
        source = str(audio_encoder)
    elif Path(adapter, "audio_encoder").is_dir():
        source, subfolder = adapter, "audio_encoder"
    elif named is None and _hears_beside(base, trained.audio):
        source, subfolder = base, "audio_encoder"
    if not isinstance(audio_encoder, nn.Module):
        audio_encoder = load_audio_encoder(source, subfolder)
    if feature_extractor is None:
        feature_extractor = load_pretrained(AutoFeatureExtractor, source, subfolder)
    return {
        "zica": zica,
        "audio_encoder": audio_encoder,
        "feature_extractor": feature_extractor,
    }


def _hears_beside(base: str, trained: AudioIdentity) -> bool:
    """Whether the base's folder holds the audio encoder an adapter was trained with."""
    if not Path(base, "audio_encoder").is_dir():
        return False
    beside = AudioIdentity.of_encoder(
        base, "audio_encoder", features=trained.features, layer=trained.layer
    )
    return not trained.differs_from(beside)


def _complete(zica: MusicAdapter, adapter: str) -> None:
    """Let an adapter that does not say what it hears say what lies beside it."""
    if zica.config.origin is not None or not Path(adapter).is_dir():
        return
    origin = Origin.assumed(Path(adapter, "zica"))
    if not origin.stored() and Path(adapter, "audio_encoder").is_dir():
        audio = AudioIdentity.of_encoder(adapter, "audio_encoder", features="encoder", layer=None)
        origin = Origin(audio, assumed_from=f"{adapter}/audio_encoder")
    if origin.stored():
        warnings.warn(
            f"{adapter} does not say what it was trained to hear; according to "
            f"{origin.assumed_from} it is {origin.audio}.",
            stacklevel=3,
        )
        zica.register_to_config(**origin.stored())


def check_belongs(
    zica: MusicAdapter,
    transformer: MochiTransformer3DModel,
    audio_encoder: Any,
    feature_extractor: Any = None,
) -> None:
    """Refuse an adapter of another base, or one that would hear with other ears than in training.

    Raises:
        AdapterMismatchError: Widths, blocks or audio encoders differ; says which.
    """
    ours, base = zica.config, transformer.config
    width = base.num_attention_heads * base.attention_head_dim
    problems = []
    if ours.width != width:
        problems.append(f"it is {ours.width} channels wide, the base {width}")
    if ours.backbone_layers not in (None, base.num_layers):
        problems.append(
            f"it listens after blocks {list(ours.layers)} of {ours.backbone_layers}, the base has "
            f"{base.num_layers}"
        )
    trained = zica.trained_with
    hears_encoder = audio_encoder is not None and trained.audio.features != LOG_MEL
    if hears_encoder and audio_encoder.config.hidden_size != ours.audio_width:
        problems.append(
            f"it takes audio features of {ours.audio_width} channels, the audio encoder gives "
            f"{audio_encoder.config.hidden_size}"
        )
    layer = trained.audio.layer
    if hears_encoder and layer is not None and layer > audio_encoder.config.num_hidden_layers:
        problems.append(
            f"it hears layer {layer}, the audio encoder has "
            f"{audio_encoder.config.num_hidden_layers}"
        )
    if problems:
        raise AdapterMismatchError(
            f"the adapter and the base do not belong together: {'; '.join(problems)}; load the "
            "adapter with the base it was trained on."
        )
    if not hears_encoder:
        return
    problem, note = hearing_problems(
        trained,
        AudioIdentity.of_loaded(audio_encoder, feature_extractor, layer=trained.audio.layer),
        path=ours.get("_name_or_path") or "the adapter",
        remedy="load it with the audio encoder it was trained with",
    )
    if problem:
        raise AdapterMismatchError(problem)
    if note:
        warnings.warn(note, stacklevel=2)


def check_lora(path: Path, transformer: MochiTransformer3DModel) -> None:
    """Refuse a LoRA of another base before anything is changed.

    Args:
        path: A file with diffusers' names, ``transformer.<layer>.lora_A.weight`` and ``lora_B``.
        transformer: The base.

    Raises:
        AdapterMismatchError: Layers that the base does not have or shapes that differ; says which.
        MissingWeightsError: The file cannot be read.
    """
    try:
        with safe_open(str(path), "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise MissingWeightsError(f"{path} cannot be read ({error}).") from error
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


def load_lora(pipeline: Any, source: str, *, name: str = LORA_NAME) -> None:
    """Load the LoRA of a folder or Hub id into a pipeline; of a folder without one, nothing."""
    path = Path(source, LORA_FILE)
    if path.is_file():
        check_lora(path, pipeline.transformer)
    elif Path(source).is_dir():
        return
    pipeline.load_lora_weights(source, weight_name=LORA_FILE, adapter_name=name)


def load_whole(load: Any, source: str, **kwargs: Any) -> Any:
    """``load(source, ...)`` of a pipeline, with one clear sentence where weights are missing.

    Raises:
        MissingWeightsError: Nothing there, or a part of it is missing.
    """
    if looks_local(source) and not Path(source).is_dir():
        raise missing_folder("MusicInfuserPipeline", source, None)
    try:
        return load(source, **kwargs)
    except OSError as error:
        hint = f" {HOW_TO_GET.format(source=source, folder=source.split('/')[-1])}"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingWeightsError(
            f"MusicInfuserPipeline: {source} could not be loaded whole."
            f"{'' if Path(source).is_dir() else hint} ({reason})"
        ) from error
