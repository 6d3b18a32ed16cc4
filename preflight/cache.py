"""The cache of encoded clips, as a training run will find it."""

from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datamodules import DanceDataModule
from datamodules.cached_clips import bucket_names, check_captions, clips_to_train_on
from datamodules.cutting import MIN_FILES_FOR_PROGRESS_BAR
from datamodules.mixing import Mixture, check_ratio
from lightning_modules.encoding import check_encoders
from lightning_modules.masked_loss import ask_for_masks
from lightning_modules.settings import MaskSpec
from musicinfuser.clip_size import names_of
from musicinfuser.media.latents import (
    CacheError,
    ClipHeader,
    OutdatedClip,
    caption_path,
    check_caption_encoder,
    check_one_recipe,
    clip_paths,
    current_clips,
    read_clip_header,
)
from musicinfuser.networks.encoders import Encoders
from musicinfuser.tables import Row
from preflight.report import Report, count, gigabytes, table

NUM_BROKEN_NAMED = 3


def check_cache(
    data: DanceDataModule,
    encoders: Encoders | None,
    report: Report,
    *,
    mask: MaskSpec = MaskSpec(),  # noqa: B008 - frozen
) -> None:
    """Add the section on the cache; nothing of a clip but its header is read.

    The data module is not set up, so that one problem does not hide the next.
    """
    headers: list[ClipHeader] = []
    broken: list[str] = []
    with report.collecting():
        paths = clip_paths(data.cache_dir)
        is_short = len(paths) < MIN_FILES_FOR_PROGRESS_BAR
        for path in tqdm(paths, "headers of clips", disable=is_short, unit="file"):
            try:
                headers.append(read_clip_header(path))
            except CacheError as error:
                broken.append(str(error))
    report.problems += broken[:NUM_BROKEN_NAMED]
    if len(broken) > NUM_BROKEN_NAMED:
        report.problem(
            f"{count(len(broken) - NUM_BROKEN_NAMED, 'more clip')} of {data.cache_dir} cannot be "
            "read; delete them and encode again."
        )
    outdated: list[OutdatedClip] = []
    with report.collecting():
        headers, outdated = current_clips(data.cache_dir, headers)
    if not headers:
        report.add("cache", f"{data.cache_dir}: no clip can be read, or none counts")
        return
    recipe = headers[0].recipe
    with report.collecting():
        check_one_recipe(headers)
    with report.collecting():
        data.check_shapes(headers)
    with report.collecting():
        check_caption_encoder(data.cache_dir, recipe, note=False)
    if encoders is not None:
        with report.collecting():
            check_encoders(data.cache_dir, recipe, encoders)
    training = clips_to_train_on(headers)
    sizes = {source: len(clips) for source, clips in training.items()}
    shares = {source: share for source, share in data.ratio.items() if share}
    for ratio in [{source: share} for source, share in shares.items()] or [data.ratio]:
        with report.collecting():
            check_ratio(sizes, ratio)
    with report.collecting():
        used = [h for source, clips in training.items() if source in shares for h in clips]
        check_captions(Path(data.cache_dir), used)
    with report.collecting():
        data.choose_validation_clips(headers)
    about_masks = ""
    with report.collecting():
        about_masks = ask_for_masks(mask, data, headers)
    lines = _description(data, headers, num_broken=len(broken))
    if about_masks:
        lines.append(about_masks)
    if outdated:
        lines.append(
            f"{count(len(outdated), 'more clip')} left out: their videos are gone or have changed"
        )
    with report.collecting():
        lines.append(_share_of_steps(data, training))
    report.add("cache", *lines)


def _share_of_steps(data: DanceDataModule, training: dict[str, list[ClipHeader]]) -> str:
    """How often each shape comes; nothing if there is only one."""
    mixture = Mixture(bucket_names(training), data.ratio, samples_per_step=1, seed=data.seed)
    if len(mixture.step_shares) == 1:
        return ""
    total = sum(mixture.step_shares.values())
    shares = (f"{share / total:.1%} {name}" for name, share in mixture.step_shares.items())
    return f"of the optimizer steps: {', '.join(shares)}"


def _description(data: DanceDataModule, headers: list[ClipHeader], *, num_broken: int) -> list[str]:
    folder, recipe = Path(data.cache_dir), headers[0].recipe
    groups: dict[tuple[str, str], list[ClipHeader]] = {}
    for header in headers:
        groups.setdefault((header.source, header.split), []).append(header)
    rows: list[Row] = []
    for (source, split), clips in sorted(groups.items()):
        texts = {text for h in clips for text in (h.caption, h.base_caption) if text}
        row: dict[str, Any] = {
            "source": source,
            "split": split,
            "clips": len(clips),
            "GB": gigabytes(sum(h.path.stat().st_size for h in clips)),
            "captions": len(texts),
            "captions missing": sum(not caption_path(folder, t).is_file() for t in texts),
            "share": data.ratio.get(source, 0),
        }
        if len(data.shapes) > 1:
            counts = Counter(header.shape for header in clips)
            row |= {n: counts[s] for n, s in zip(names_of(data.shapes), data.shapes, strict=True)}
        rows.append(row)
    shapes = {header.shape for header in headers}
    made_of = ", ".join(sorted(names_of(shapes)))
    frames = "" if len({n for n, *_ in shapes}) > 1 else f"{recipe.num_frames} frames of "
    texts_bytes = sum(p.stat().st_size for p in folder.glob("captions/*.safetensors"))
    return [
        f"{folder}: {count(len(headers), 'clip')} complete, {num_broken} broken; captions "
        f"{gigabytes(texts_bytes):.2f} GB",
        f"made of {frames}{made_of} at {recipe.fps:g} fps, {recipe.dtype}, "
        f"vae {recipe.vae}, text encoder {recipe.text_encoder}, audio encoder "
        f"{recipe.audio_encoder}",
        table(rows),
    ]
