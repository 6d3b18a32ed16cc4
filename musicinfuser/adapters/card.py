"""The model card of an adapter: README.md with the header the Hub reads."""

from dataclasses import dataclass

import yaml

from musicinfuser.adapters.settings import Adapter
from musicinfuser.networks.backbone import MOCHI_HUB_ID
from musicinfuser.networks.transformers_audio import WAV2VEC_HUB_ID

NOT_KNOWN = "not known"
"""For what nobody recorded."""
_MUSIC_ROWS = """\
| blocks with audio | {layers} |
| ZICA | {zica} |
| audio tokens | {settings.audio_resampling}, width {settings.audio_width} |
"""
_LORA_ROW = """\
| LoRA | rank {lora.rank}, alpha {lora.alpha:g}, streams {lora.streams}, one A for q, k and v: \
{tied} |
"""
_MUSIC_FILE = "| `zica/` | ZICA and the audio projector: `MusicInfuserPipeline` |\n"
_LORA_FILES = """\
| `pytorch_lora_weights.safetensors` | LoRA for diffusers: `pipe.load_lora_weights`; this program |
| `adapter_config.json`, `adapter_model.safetensors` | the same LoRA for plain peft: \
`PeftModel.from_pretrained(transformer, FOLDER)` |
"""
_MUSIC_USE = """\
or in Python:

```python
from musicinfuser import MusicInfuserPipeline

pipe = MusicInfuserPipeline.from_pretrained("{loaded}", adapter="FOLDER")
frames = pipe("a dance video", audio="song.mp3", num_frames=73).frames
```

"""
_LORA_USE = """\
The LoRA alone, which is not conditioned on audio:

```python
from diffusers import MochiPipeline

pipe = MochiPipeline.from_pretrained("{loaded}")
pipe.load_lora_weights("FOLDER", weight_name="pytorch_lora_weights.safetensors")
```

"""
_CARD = """\
---
{header}
---

# A MusicInfuser adapter

It makes {base} dance to music, as in *MusicInfuser: Making Video Diffusion Listen and Dance* \
([arXiv 2503.14505](https://arxiv.org/abs/2503.14505)).
{origin}
| what | value |
|---|---|
| base model | {facts.base_model} |
| audio encoder | {facts.audio_encoder} |
| values in all | {num_values:,} |
{rows}
## Files

| file | who reads it |
|---|---|
{files}| `config.yaml` | how it was trained |

## Use

    python train.py predict --config FOLDER/config.yaml --ckpt_path null \\
      --model.init_args.init_adapter FOLDER \\
      --data.init_args.generation.music '[song.mp3]' \\
      --data.init_args.generation.prompts '[a dance video]'

{use}Base model, audio encoder and training media have terms of their own.
"""


@dataclass(frozen=True)
class CardFacts:
    """What the tensors do not say."""

    base_model: str = MOCHI_HUB_ID
    """The frozen transformer: a Hub id, or a folder's name; `NOT_KNOWN` names none."""
    audio_encoder: str = WAV2VEC_HUB_ID
    license: str = "apache-2.0"
    """Of the adapter; as the Hub writes it."""
    origin: str = ""
    """One sentence on where the weights come from, such as a step of a training."""


def model_card(adapter: Adapter, facts: CardFacts) -> str:
    """Markdown with a yaml header; every number is the adapter's own."""
    settings, lora = adapter.settings, adapter.settings.lora
    is_known = facts.base_model != NOT_KNOWN
    header = {
        **({"base_model": facts.base_model} if is_known else {}),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video",
        "license": facts.license,
        "tags": ["music", "dance", "lora", "mochi", "musicinfuser"],
    }
    rows = files = use = ""
    if settings.layers:
        zica = ", ".join(f"{name} {value}" for name, value in settings.zica.stored().items())
        layers = ", ".join(map(str, settings.layers))
        rows += _MUSIC_ROWS.format(layers=layers, zica=zica, settings=settings)
        rows += f"| audio features | {adapter.origin.audio} |\n" if adapter.origin else ""
        files, use = _MUSIC_FILE, _MUSIC_USE
    if lora is not None:
        rows += _LORA_ROW.format(lora=lora, tied="yes" if lora.share_qkv_a else "no")
        files, use = files + _LORA_FILES, use + _LORA_USE
    return _CARD.format(
        header=yaml.safe_dump(header, sort_keys=False).rstrip(),
        base=facts.base_model if is_known else "a Mochi whose weights are not known",
        origin=f"{facts.origin}\n" if facts.origin else "",
        facts=facts,
        num_values=sum(tensor.numel() for tensor in adapter.tensors.values()),
        rows=rows,
        files=files,
        use=use.format(loaded=facts.base_model if is_known else "BASE_MODEL"),
    )
