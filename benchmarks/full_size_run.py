"""Where a run at full size lives: its folders, its config and the commands of its parts."""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.processes import PartError, call_apart, run_apart
from benchmarks.profiles import CONFIGS, family_of, read_profile
from benchmarks.random_parts import AIST_FILES
from musicinfuser.atomic_files import write_text
from musicinfuser.clip_size import geometry_of
from musicinfuser.setting_differences import laid_over

# Of a base that is named here; another has the recipe's. As configs/wan_14b_24gb.yaml.
SMALLER_ADAPTER = {
    "wan_5b": {
        "layers": {"num_layers": 8},
        "zica": {"width": 1536},
        "lora": {"rank": 32, "alpha": 32},
    },
}
ENCODE_CONFIGS = {"wan_1b": "wan_encode", "wan_5b": "wan_5b_encode"}


@dataclass
class Life:
    """Where a run lives, and what its parts took."""

    settings: argparse.Namespace
    folder: Path
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each part: ``seconds``, ``peak_gib`` and what else it found."""

    @property
    def weights(self) -> Path:
        """Folder of the random parts."""
        return self.folder / "weights"

    @property
    def media(self) -> Path:
        """Folder of the videos and the picture."""
        return self.folder / "media"

    @property
    def song(self) -> Path:
        """A file with music that no training hears."""
        return self.media / "aist" / f"{AIST_FILES[1]}.mp4"

    @property
    def picture(self) -> Path | None:
        """What videos begin with; None of a base that cannot."""
        takes_image = geometry_of(family_of(read_profile(self.settings.base)).family).takes_image
        return self.media / "picture.png" if takes_image else None

    @property
    def size(self) -> dict[str, int]:
        """Of the clips: frames, and pixels along each side."""
        names = {"num_frames": "frames", "height": "height", "width": "width"}
        return {name: getattr(self.settings, option) for name, option in names.items()}

    @property
    def depth(self) -> int:
        """Blocks of the transformer."""
        config = json.loads((self.weights / "transformer" / "config.json").read_text())
        return config["num_layers"]

    def note(self, part: str, **found: Any) -> None:
        """Keep what a part took, and say it."""
        self.parts[part] = found
        print(f"{part}: {found}", flush=True)

    def run(
        self, part: str, command: list[str], *, watch: Callable[..., Any] | None = None,
        expected: int = 0,
    ) -> Any:  # fmt: skip
        """Run a command to its end and measure it.

        Args:
            part: Its name among the parts, and of its log.
            command: Arguments of Python.
            watch: Called with the process while it runs; what it returns is returned.
            expected: Exit code; of a signal, less than 0.

        Raises:
            PartError: It ended with another code.
        """
        log = self.folder / f"{part.replace(' ', '_')}.log"
        limit = self.settings.limit_gib
        code, use, found = run_apart(command, log, limit_gib=limit, watch=watch)
        self.note(part, **use)
        if code != expected:
            raise PartError(f"{part}: exit code {code}; see {log.name}")
        return found

    def call(self, part: str, function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        """The same for a function, in a process of its own."""
        self.note(part, **call_apart(function, *arguments, limit_gib=self.settings.limit_gib))

    def config(self) -> Path:
        """An overlay of all that is not the recipe's: folders, the clips' size, the steps."""
        steps = self.settings.steps
        saver = {
            "filename": "{step:06d}", "every_n_train_steps": 1, "save_top_k": 1, "save_last": False,
            "dirpath": "${trainer.default_root_dir}/checkpoints", "auto_insert_metric_name": False,
            "enable_version_counter": False,
        }  # fmt: skip
        weights = str(self.weights)
        model = {
            "backbone": {"pretrained": weights},
            # A third of the depth, as the recipe's; of two blocks that would be none.
            "layers": {"num_layers": max(self.depth // 3, 1)},
            "encoders": {"audio": weights, "audio_subfolder": "audio_encoder"},
            "sampling": {"num_steps": 4},
        }
        overlay = {
            "trainer": {
                "max_steps": steps, "accelerator": "cpu", "devices": 1, "logger": False,
                "val_check_interval": None, "limit_val_batches": 1, "enable_progress_bar": False,
                "callbacks": [
                    {"class_path": "callbacks.AtomicCheckpoint", "init_args": saver},
                    {"class_path": "callbacks.FiniteTraining"},
                ],
            },
            "model": {
                "init_args": laid_over(model, SMALLER_ADAPTER.get(self.settings.base, {})),
            },
            "data": {"init_args": self.size | {
                "cache_dir": str(self.folder / "cache"), "num_workers": 0,
            }},
            "sample_generation": {"every_n_steps": 0},
        }  # fmt: skip
        path = self.folder / "overlay.yaml"
        write_text(path, yaml.safe_dump(overlay, sort_keys=False))
        return path

    def line(self, verb: str, name: str, *more: str) -> list[str]:
        """The command of train.py for the run ``name``."""
        configs = (CONFIGS / "base.yaml", CONFIGS / f"{self.settings.base}.yaml", self.config())
        root = self.folder / name
        return [
            "train.py", verb, *(f"--config={path}" for path in configs),
            f"--trainer.default_root_dir={root}", *more,
        ]  # fmt: skip

    def last(self, name: str) -> Path:
        """The last checkpoint of a run that has one."""
        return max(self.checkpoints(name).glob("[0-9]*.ckpt"))

    def checkpoints(self, name: str) -> Path:
        """The folder of a run's checkpoints."""
        return self.folder / name / "checkpoints"
