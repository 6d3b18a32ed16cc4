"""Stand-ins for train.py and evaluate.py that take no time, for tests of who starts them."""

import json
from pathlib import Path

import yaml

TRAIN = """
import json, os, signal, sys, time
from pathlib import Path

import yaml


def lay(below, above):
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            lay(below[key], value)
        else:
            below[key] = value


verb, *rest = sys.argv[1:]
defaults = Path(__file__).parent / "defaults.json"
config = json.loads(defaults.read_text()) if defaults.exists() else {}
for name, value in (a[2:].split("=", 1) for a in rest if "=" in a):
    if name == "config":
        lay(config, yaml.safe_load(Path(value).read_text()) or {})
        continue
    value = yaml.safe_load(value)
    for key in reversed(name.split(".")):
        value = {key: value}
    lay(config, value)
if "--print_config" in rest:
    print(json.dumps(config))
    sys.exit(not defaults.exists())
options = dict(a[2:].split("=", 1) for a in rest if not a.startswith("--config"))
root = Path(options["trainer.default_root_dir"])
root.mkdir(parents=True, exist_ok=True)
(root / "logs").mkdir(exist_ok=True)
(root / "logs" / f"config_{verb}.yaml").write_text(json.dumps(config))
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
with (root / "calls").open("a") as calls:
    print(verb, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), file=calls, flush=True)
with (root / "threads").open("a") as threads:
    print(os.environ.get("OMP_NUM_THREADS"), file=threads)
start = time.monotonic()
if verb == "fit":
    unlucky = options.get("fail_once")
    if unlucky and not Path(unlucky).exists():
        Path(unlucky).touch()
        sys.exit("train.py: no luck this time.")
    checkpoint = root / "checkpoints" / "last.ckpt"
    step = int(checkpoint.read_text()) if checkpoint.exists() else 0
    checkpoint.parent.mkdir(exist_ok=True)
    last = int(options["trainer.max_steps"])
    until = int(options.get("stops_early", last))
    while step < until and not told:
        time.sleep(float(options.get("pause", 0)))
        step += 1
        (root / "checkpoint.tmp").write_text(str(step))
        os.replace(root / "checkpoint.tmp", checkpoint)
        progress = {"step": step, "max_steps": last, "loss": 1 / step, "seconds_per_step": 2.0}
        if step == until < last:
            progress["ended"] = True
        (root / "progress.tmp").write_text(json.dumps(progress))
        os.replace(root / "progress.tmp", root / "progress.json")
        with (root / "steps").open("a") as steps:
            print(step, file=steps)
    (root / "span.json").write_text(json.dumps([start, time.monotonic()]))
elif verb == "predict":
    folder = Path(options["video_writer.output_dir"])
    folder.mkdir(exist_ok=True)
    (folder / "system").write_text(options["video_writer.system"])
    (folder / "from").write_text(options["ckpt_path"])
    if options.get("cut") == "now":
        sys.exit("train.py: cut off.")
"""
EVALUATE = """
import json, sys
from pathlib import Path

folder = Path(sys.argv[2])
output = Path(next(a for a in sys.argv if a.startswith("--output="))[9:])
system = (folder / "system").read_text()
score = float(len(system))
clips = [
    {"system": system, "file": f"{n}.mp4", "values": {"beat": {"score": score + n}}, "failures": {}}
    for n in range(4)
]
value = {"mean": score + 1.5, "low": None, "high": None, "n": 4, "num_failed": 0}
document = {
    "systems": {system: {"beat/score": value}}, "clips": clips, "seed": 0, "confidence": 0.95,
    "complete": True, "metrics": [],
}
output.write_text(json.dumps(document))
"""
DRIVER = """
import sys
from pathlib import Path
from sweeps import commands, plan
plan.ROOT = Path(sys.argv[1])
sys.exit(commands.sweep_command(sys.argv[2:]))
"""


def write_doors(folder: Path) -> Path:
    """A folder that takes the place of this repository's root."""
    folder.mkdir()
    (folder / "train.py").write_text(TRAIN)
    (folder / "evaluate.py").write_text(EVALUATE)
    return folder


def write_sweep(folder: Path, rows: list[dict], **changes: object) -> Path:
    """A sweep file with what it names; runs go to ``folder / "out"``."""
    (folder / "base.yaml").write_text("trainer: {max_steps: 3}\nlist: [1, 2]\n")
    (folder / "metrics.yaml").write_text("[]\n")
    data = {
        "folder": str(folder / "out"),
        "configs": [str(folder / "base.yaml")],
        "options": {"trainer.max_steps": 3},
        "seeds": [1, 2],
        "rows": rows,
        "score": {"metrics": str(folder / "metrics.yaml")},
        **changes,
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def steps(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "steps").read_text().split()]


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())
