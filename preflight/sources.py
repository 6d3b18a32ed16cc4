"""The videos an encode or caption job will read, and what it will write."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules import CaptioningDataModule, EncodingDataModule
from datamodules.clips import ClipSpec
from datamodules.cutting import ClipDataset
from datamodules.encoding import find_outdated, not_encoded
from datamodules.report import left_out_of
from datamodules.shots import stored_cuts_only
from lightning_modules import ClipEncoder
from lightning_modules.captioning import VideoCaptioner
from musicinfuser.clip_size import ClipShape, names_of
from musicinfuser.media.latents import OutdatedClip, captions_missing, check_caption_encoder
from musicinfuser.networks.backbone import DTYPES
from musicinfuser.tables import Row
from preflight.disk import caption_bytes, clip_bytes, free_bytes, require_room
from preflight.report import Report, Settings, count, gigabytes, table
from preflight.weights import CheckedPart, encoder_parts, part_folder


def check_captioning(settings: Settings, data: CaptioningDataModule, report: Report) -> None:
    """Add the sections on the videos and the captioner; no video is opened, no weight is read."""
    with report.collecting():
        data.setup("predict")
        videos = f"{count(len(data.missing), 'video')} of {len(data.videos)} without a caption"
        report.add("videos", f"{videos}; captions go to {data.tables}")
    if isinstance(settings.model, VideoCaptioner):
        with report.collecting():
            report.add("captioner", str(part_folder("captioner", settings.model.spec.source)))


def check_sources(data: EncodingDataModule, report: Report) -> list[ClipSpec]:
    """Add the section on the sources, of which no file is decoded; all clips that will be cut."""
    specs: list[ClipSpec] = []
    rows: list[Row] = []
    notes: list[str] = []
    for source in data.sources:
        with report.collecting(), stored_cuts_only():
            dataset = source(data.settings)
            data.datasets.append(dataset)
            specs += dataset.clips
            rows.append(_row(dataset, data.shapes))
            notes += _notes(dataset)
    report.add("sources", table(rows), *notes)
    return specs


def _row(dataset: ClipDataset, shapes: Sequence[ClipShape]) -> Row:
    videos = {spec.path for spec in dataset.clips}
    splits = Counter(spec.split for spec in dataset.clips)
    buckets = Counter(spec.shape for spec in dataset.clips)
    row: dict[str, Any] = {
        "source": dataset.source,
        "videos used": len(videos),
        "GB": gigabytes(sum(path.stat().st_size for path in videos)),
        "clips": len(dataset.clips),
        "train": splits["train"],
        "held out": splits["held_out"],
        "skipped": len(dataset.skipped),
        "not selected": sum(dataset.num_not_selected.values()),
    }
    if len(shapes) > 1:
        row |= {name: buckets[s] for name, s in zip(names_of(shapes), shapes, strict=True)}
    return row


def _notes(dataset: ClipDataset) -> list[str]:
    notes = [
        f"{row['source']} {row['kind']}: {row['reason']}: {row['count']}"
        for row in left_out_of(dataset)
    ]
    if dataset.num_unknown_cuts:
        notes.append(
            f"{dataset.source}: {count(dataset.num_unknown_cuts, 'video')} whose cuts the encode "
            "job will look for first; counted as one shot each"
        )
    return notes + [f"{dataset.source}: {note}" for note in dataset.notes]


def lacks_parts(module: ClipEncoder, parts: dict[str, CheckedPart]) -> bool:
    """Whether a config of those that encoding needs could not be read."""
    return any(part.name not in parts for part in encoder_parts(module.encoders.spec))


def check_growth(
    data: EncodingDataModule,
    module: ClipEncoder,
    specs: list[ClipSpec],
    parts: dict[str, CheckedPart],
    report: Report,
) -> None:
    """Add the sections on the cache so far and on the disk it will fill.

    Of the module's encoders only settings are read; ``parts`` are those whose configs were read.
    """
    if not specs or lacks_parts(module, parts):
        report.add("cache", f"{data.cache_dir}: not known before the problems are solved")
        return
    # The VAE's statistics are part of the recipe and come from its config alone.
    module.encoders.vae = parts["vae"].skeleton  # type: ignore[assignment]
    missing = list(range(len(specs)))
    recipe = None
    with report.collecting():
        recipe = module.recipe_of(data.settings)
        check_caption_encoder(data.cache_dir, recipe, note=False)
    if recipe is not None:
        with report.collecting():
            missing, _ = not_encoded(data.cache_dir, specs, recipe)
    outdated: list[OutdatedClip] = []
    with report.collecting():
        outdated = find_outdated(data.cache_dir, data.datasets)
    captions = captions_missing(data.cache_dir, specs)
    value_bytes = DTYPES[module.encoders.spec.dtype].itemsize
    per_clip = {
        shape: clip_bytes(
            *shape,
            fps=data.settings.fps,
            value_bytes=value_bytes,
            geometry=data.geometry,
            audio=module.encoders.audio,
        )
        for shape in data.shapes
    }
    texts = caption_bytes(
        captions,
        width=parts["text_encoder"].config["d_model"],
        value_bytes=value_bytes,
        max_tokens=module.encoders.spec.max_text_tokens,
    )
    shapes = Counter(specs[i].shape for i in missing)
    needed = sum(number * per_clip[shape] for shape, number in shapes.items()) + texts
    clips = " + ".join(f"{shapes[s]} x {per_clip[s] / 1e6:.3f} MB" for s in data.shapes)
    folder = Path(data.cache_dir)
    groups: Counter[tuple[str, str]] = Counter((specs[i].source, specs[i].split) for i in missing)
    rows: list[Row] = []
    for (source, split), number in sorted(Counter((s.source, s.split) for s in specs).items()):
        left = groups[source, split]
        row: dict[str, Any] = {"source": source, "split": split, "clips": number}
        rows.append(row | {"encoded": number - left, "missing": left})
    lines = [f"{folder}: {count(len(captions), 'caption')} missing", table(rows)]
    if (masks := data.masks_to_make()) is not None:
        lines += [f"masks: {masks.num_found} there, {len(masks)} to make", masks.note()]
    for reason, number in sorted(Counter(clip.reason for clip in outdated).items()):
        lines.append(f"{count(number, 'clip')} in the cache: {reason}")
    report.add("cache so far", *lines)
    report.add(
        "disk",
        f"{clips} of clips, at most {gigabytes(texts):.3f} GB of captions: "
        f"{gigabytes(needed):.3f} GB; {gigabytes(free_bytes(folder)):.1f} GB free",
    )
    require_room(folder, needed, f"{count(len(missing), 'clip')} and their captions", report)
