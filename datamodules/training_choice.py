"""Which of a cache's clips training sees."""

from datamodules.aist_names import tables
from datamodules.mixing import permutation
from musicinfuser.media.latents import ClipHeader


def clips_to_train_on(headers: list[ClipHeader]) -> dict[str, list[ClipHeader]]:
    """The clips of the split ``train`` by source; held-out music never is among them (Table 7)."""
    held_out = set(tables().held_out_music)
    clips: dict[str, list[ClipHeader]] = {}
    for header in headers:
        if header.split == "train" and header.music not in held_out:
            clips.setdefault(header.source, []).append(header)
    return clips


def share_of(clips: list[ClipHeader], share: float, *, source: str, seed: int) -> list[ClipHeader]:
    """A share of a source's clips, drawn by the seed, in their order; at least one."""
    if share == 1:
        return clips
    order = permutation(seed, f"share of {source}", 0, len(clips))
    return [clips[i] for i in sorted(order[: max(1, round(share * len(clips)))])]
