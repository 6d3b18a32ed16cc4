"""What a caption job will look at, and with what model."""

from datamodules import CaptioningDataModule
from lightning_modules.captioning import VideoCaptioner
from musicinfuser.pretrained_sources import HOW_TO_GET, find_local, looks_local, missing_folder
from preflight.report import Report, count
from preflight.settings import Settings


def check_captioning(settings: Settings, data: CaptioningDataModule, report: Report) -> None:
    """Add the sections on the videos and the captioner; no video is opened, no weight is read.

    Args:
        settings: The parts of the config.
        data: Its data module; it is set up.
        report: Takes sections and problems.
    """
    with report.collecting():
        data.setup("predict")
        videos = f"{count(len(data.missing), 'video')} of {len(data.videos)} without a caption"
        report.add("videos", f"{videos}; captions go to {data.tables}")
    if not isinstance(settings.model, VideoCaptioner):
        return
    source = settings.model.spec.source
    folder = find_local(source, None)
    if folder is not None:
        report.add("captioner", str(folder))
    elif looks_local(source):
        report.problem(str(missing_folder("captioner", source, None)))
    else:
        hint = HOW_TO_GET.format(source=source, folder=source.split("/")[-1])
        report.problem(f"captioner: {source} is not on this machine. {hint}")
