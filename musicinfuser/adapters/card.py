"""The model card of an adapter: README.md with the header the Hub reads."""

from dataclasses import dataclass

import yaml

from musicinfuser.adapters.settings import Adapter
from musicinfuser.networks.backbone import MOCHI_HUB_ID
from musicinfuser.networks.encoders import WAV2VEC_HUB_ID

NOT_KNOWN = "not known"
"""For what nobody recorded."""


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
    base = facts.base_model if is_known else "a Mochi whose weights are not known"
    loaded = facts.base_model if is_known else "BASE_MODEL"
    header = {
        **({"base_model": facts.base_model} if is_known else {}),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video",
        "license": facts.license,
        "tags": ["music", "dance", "lora", "mochi", "musicinfuser"],
    }
    num_values = sum(tensor.numel() for tensor in adapter.tensors.values())
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).rstrip(),
        "---",
        "",
        "# A MusicInfuser adapter",
        "",
        f"It makes {base} dance to music, as in *MusicInfuser: Making Video Diffusion "
        "Listen and Dance* ([arXiv 2503.14505](https://arxiv.org/abs/2503.14505)).",
        *([facts.origin] if facts.origin else []),
        "",
        "| what | value |",
        "|---|---|",
        f"| base model | {facts.base_model} |",
        f"| audio encoder | {facts.audio_encoder} |",
        f"| values in all | {num_values:,} |",
    ]
    if settings.layers:
        zica = settings.zica
        lines += [
            f"| blocks with audio | {', '.join(map(str, settings.layers))} |",
            f"| ZICA | {zica.form}, {zica.num_heads} heads, bias {zica.bias}, scale {zica.scale}, "
            f"positions {zica.positions} |",
            f"| audio tokens | {settings.audio_resampling}, width {settings.audio_width} |",
            *([f"| hears | {adapter.origin.audio} |"] if adapter.origin else []),
        ]
    if lora is not None:
        lines.append(
            f"| LoRA | rank {lora.rank}, alpha {lora.alpha:g}, streams {lora.streams}, one A for "
            f"q, k and v: {'yes' if lora.share_qkv_a else 'no'} |"
        )
    lines += ["", "## Files", "", "| file | who reads it |", "|---|---|"]
    if settings.layers:
        lines.append("| `zica/` | ZICA and the audio projector: `MusicInfuserPipeline` |")
    if lora is not None:
        lines += [
            "| `pytorch_lora_weights.safetensors` | LoRA for diffusers: "
            "`pipe.load_lora_weights`; this program |",
            "| `adapter_config.json`, `adapter_model.safetensors` | the same LoRA for plain peft: "
            "`PeftModel.from_pretrained(transformer, FOLDER)` |",
        ]
    lines += [
        "| `config.yaml` | how it was trained |",
        "",
        "## Use",
        "",
        "    python train.py predict --config FOLDER/config.yaml --ckpt_path null \\",
        "      --model.init_args.init_adapter FOLDER \\",
        "      --data.init_args.generation.music '[song.mp3]' \\",
        "      --data.init_args.generation.prompts '[a dance video]'",
        "",
    ]
    if settings.layers:
        lines += [
            "or in Python:",
            "",
            "```python",
            "from musicinfuser import MusicInfuserPipeline",
            "",
            f'pipe = MusicInfuserPipeline.from_pretrained("{loaded}", adapter="FOLDER")',
            'frames = pipe("a dance video", audio="song.mp3", num_frames=73).frames',
            "```",
            "",
        ]
    if lora is not None:
        lines += [
            "The LoRA alone, which does not hear:",
            "",
            "```python",
            "from diffusers import MochiPipeline",
            "",
            f'pipe = MochiPipeline.from_pretrained("{loaded}")',
            'pipe.load_lora_weights("FOLDER", weight_name="pytorch_lora_weights.safetensors")',
            "```",
            "",
        ]
    lines += [
        "Base model, audio encoder and training media have terms of their own.",
        "",
    ]
    return "\n".join(lines)
