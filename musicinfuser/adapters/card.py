"""The model card of an adapter: README.md with the header the Hub reads."""

from dataclasses import dataclass

import yaml

from musicinfuser.adapters.settings import Adapter
from musicinfuser.clip_size import geometry_of
from musicinfuser.html_pages import render
from musicinfuser.networks.backbones.mochi import MOCHI_HUB_ID
from musicinfuser.networks.transformers_audio import WAV2VEC_HUB_ID

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
    """Markdown with a yaml header, from ``templates/adapter_card.md``."""
    is_known = facts.base_model != NOT_KNOWN
    header = {
        **({"base_model": facts.base_model} if is_known else {}),
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video",
        "license": facts.license,
        "tags": ["music", "dance", "lora", adapter.settings.family, "musicinfuser"],
    }
    zica, title = adapter.settings.zica.stored(), geometry_of(adapter.settings.family).title
    return (
        render(
            "adapter_card.md",
            header=yaml.safe_dump(header, sort_keys=False).rstrip(),
            base=facts.base_model if is_known else f"a {title} whose weights are not known",
            loaded=facts.base_model if is_known else "BASE_MODEL",
            facts=facts,
            settings=adapter.settings,
            zica=", ".join(f"{name} {value}" for name, value in zica.items()),
            audio=adapter.origin and adapter.origin.audio,
            num_values=f"{sum(tensor.numel() for tensor in adapter.tensors.values()):,}",
        )
        + "\n"
    )
