"""SongsUnderWay: a song that `predict` was cut off in goes on after its last finished step."""

import hashlib
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L

from callbacks.sigterm import leave_unless_done
from musicinfuser.generation import KeptLatents
from musicinfuser.generation_requests import GenerationRequest

if TYPE_CHECKING:
    from lightning_modules.music_infuser import MusicInfuserModule

FOLDER = "songs_under_way"


class SongsUnderWay(L.Callback):
    """Keeps the latents of songs in windows until their videos are written.

    They lie in ``<trainer.default_root_dir>/songs_under_way``, 4 bytes for each of the 12 channels
    of a latent (of three minutes at 480x848 275 MB). The same command goes on with them; with other
    adapters, another backbone, other encoders or settings the song is begun anew. On SIGTERM it is
    left after the step under way.
    """

    def __init__(self) -> None:
        self._kept: list[KeptLatents] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Tell the module where its clips go."""
        module: MusicInfuserModule = pl_module  # type: ignore[assignment]
        module.kept_latents = partial(self._keep, trainer, module)

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remove what is written; the callback that writes comes before this one."""
        for kept in self._kept:
            kept.remove()
        self._kept.clear()

    def _keep(
        self, trainer: L.Trainer, module: "MusicInfuserModule", request: GenerationRequest
    ) -> KeptLatents | None:
        if not request.in_windows or module.sampling.windows(request.num_frames) is None:
            return None
        total = module.sampling.num_steps

        def on_kept(num_done: int) -> None:
            leave_unless_done(trainer, num_done, total, f"steps of a song to {request.track}")

        kept = KeptLatents(
            Path(trainer.default_root_dir, FOLDER),
            request.file_stem(),
            {
                "cell": asdict(request),  # the key in folders of earlier versions
                "sampling": asdict(module.sampling),
                "model": module.model_settings(),
                "backbone": asdict(module.backbone_spec),
                "weights": module.backbone_spec.fingerprint(),
                "encoders": module.encoders.fingerprints(),
                "adapters": _adapters_hash(module),
                "precision": trainer.precision,
            },
            on_kept=on_kept,
        )
        if num_done := kept.num_done():
            print(f"The song to {request.track} goes on after {num_done} of {total} steps.")
        self._kept.append(kept)
        return kept


def _adapters_hash(module: "MusicInfuserModule") -> str:
    digest = hashlib.blake2b(digest_size=8)
    parameters = dict(module.adapted.named_parameters())
    for name in sorted(module.adapted.trainable_names()):
        digest.update(name.encode())
        digest.update(parameters[name].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()
