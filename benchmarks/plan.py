"""What a training step takes of each backbone with each profile: memory and work, by count.

    python -m benchmarks.plan --out benchmarks/results/plan.json

The rows are those that `train.py check` prints, for the clips of the backbones' own configs, one
clip a step. Memory is the estimate of `preflight.memory`, work that of `musicinfuser.networks.work`
with as many text tokens as the backbone reads at most. On a GPU also the seconds that a step takes
at least, at the rate of its matrix products. `python -m benchmarks.results_table` puts the rows
into docs/clusters_and_memory.md.
"""

import argparse
from typing import Any

import torch

from benchmarks.limits import peak_tflops
from benchmarks.profiles import build_on_meta, read_profile
from benchmarks.report import Figure, command_of, parser
from musicinfuser.clip_size import num_visual_tokens
from musicinfuser.networks.work import Work
from musicinfuser.tables import Row
from preflight.memory import CONTEXT_BYTES, TrainingSizes
from preflight.profiles import profile_row, profile_rows
from preflight.report import gigabytes

AS_IT_IS = "none"
BACKBONES: dict[str, tuple[str, dict[str, int]]] = {
    "Mochi": ("base", {}),
    "Wan 1.3B": ("wan_1b", {}),
    "Wan 2.2 5B": ("wan_5b", {}),
    "Wan 2.2 5B, smaller clips": ("wan_5b", {"num_frames": 73, "height": 480, "width": 832}),
    "Wan 14B": ("wan_14b", {}),
    "Wan 14B, smaller adapter": ("wan_14b+wan_14b_24gb", {}),
}
"""Configs, overlays joined by ``+``, and what is not as they have it."""


def rows_of(profile: str, changes: dict[str, int], tflops: float | None = None) -> list[Row]:
    """One for the config as it is, and one for each profile that its backbone can run.

    Arguments as in `BACKBONES`, and a rate in TFLOP/s.
    """
    config = read_profile(profile)
    data = config["data"]["init_args"] | changes
    clip = (data["num_frames"], data["height"], data["width"])
    objective = config["model"]["init_args"].get("objective", {})
    model = build_on_meta(config, compile_blocks=False)
    sizes = TrainingSizes.of(
        model, num_tokens=num_visual_tokens(*clip, geometry=model.kind.geometry),
        first_given=objective.get("first_frame_probability", 0) > 0,
    )  # fmt: skip
    work = Work.of(model, *clip, text_tokens=model.kind.usual.text_tokens)
    rows = [
        profile_row(AS_IT_IS, sizes, work, tflops=tflops),
        *profile_rows(model, sizes, work, tflops=tflops),
    ]
    return [{"clip": f"{clip[0]} of {clip[1]}x{clip[2]}", **row} for row in rows]


def measure(settings: argparse.Namespace) -> tuple[list[Figure], dict[str, Any]]:
    """The rows of all backbones; as they are in ``details``."""
    device = torch.device(settings.device)
    tflops = peak_tflops(device)[0] if device.type == "cuda" else None
    rows = [
        {"backbone": name, **row}
        for name, (profile, changes) in BACKBONES.items()
        for row in rows_of(profile, changes, tflops)
    ]
    figures = [
        Figure(
            f"{row['backbone']}, {row['clip']}, {row['profile']}", row["GB on the GPU"],
            "GB on the GPU", note=f"{row['GB in host memory']:.1f} GB in host memory, "
            f"{row['TFLOP per step']:.4g} TFLOP per step",
        )
        for row in rows
    ]  # fmt: skip
    return figures, {"rows": rows, "context_gb": gigabytes(CONTEXT_BYTES)}


OPTIONS = parser(__doc__, "device")
main = command_of("plan", OPTIONS, measure)

if __name__ == "__main__":
    main()
