"""A training on a backbone in few bits: resumed, exported, sampled and checked."""

import sys
from pathlib import Path

import pytest
import torch

from musicinfuser.adapters.folder import read_folder
from musicinfuser.errors import UserError
from tests.test_resume import assert_equal

QUANTIZE = "--model.init_args.backbone.quantize="
# The module that is imported of the package that each needs.
MODULES = {"int8": "torchao.quantization", "nf4": "bitsandbytes"}
CONSTANT = "--model.init_args.schedule.decay=constant"


@pytest.mark.parametrize("quantize", MODULES)
def test_it_resumes_to_the_bit_is_exported_and_sampled(
    run_cli, small_cache: Path, media: Path, tmp_path: Path, quantize: str, capsys
) -> None:
    pytest.importorskip(MODULES[quantize])
    option = f"{QUANTIZE}{quantize}"

    def fit(folder: str, num_steps: int) -> dict:
        run_cli(
            "fit",
            option,
            CONSTANT,
            f"--trainer.max_steps={num_steps}",
            "--trainer.callbacks+=callbacks.AdapterExport",
            cache=small_cache,
            root=tmp_path / folder,
        )
        path = tmp_path / folder / "checkpoints" / "last.ckpt"
        return torch.load(path, weights_only=True)

    whole, _ = fit("whole", 3), fit("parted", 2)
    parted = fit("parted", 3)
    for key in ("state_dict", "optimizer_states"):
        assert_equal(whole[key], parted[key])
    adapter = read_folder(tmp_path / "whole" / "adapter")
    assert_equal({f"model.{n}": t for n, t in adapter.tensors.items()}, whole["state_dict"])
    generation = (
        f"{{music: [{next((media / 'aist').glob('*.mp4'))}], prompts: [a dancer], num_frames: 7}}"
    )
    capsys.readouterr()
    run_cli("check", option, CONSTANT, cache=small_cache, root=tmp_path / "whole")
    assert "no problems found" in capsys.readouterr().out
    run_cli(
        "predict", option, f"--data.init_args.generation={generation}", cache=small_cache,
        root=tmp_path / "whole",
    )  # fmt: skip
    assert len(list((tmp_path / "whole" / "videos").rglob("*.mp4"))) == 1


@pytest.mark.parametrize("quantize", MODULES)
@pytest.mark.parametrize("verb", ["fit", "check"])
def test_what_is_missing_is_said_first(
    run_cli, small_cache: Path, verb: str, quantize: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, MODULES[quantize], None)
    package = MODULES[quantize].partition(".")[0]
    sentence = f"quantize: {quantize} needs the package {package}; pip install '{package}>=0."
    if verb == "fit":
        with pytest.raises(UserError, match=sentence):
            run_cli("fit", f"{QUANTIZE}{quantize}", cache=small_cache)
    else:
        run_cli("check", f"{QUANTIZE}{quantize}", cache=small_cache)
        assert sentence in capsys.readouterr().out


def test_a_shared_out_backbone_is_refused(run_cli, small_cache: Path) -> None:
    pytest.importorskip("torchao")
    with pytest.raises(UserError, match="shares out weights in their own type"):
        run_cli(
            "fit", f"{QUANTIZE}int8", "--model.init_args.shard_backbone=true", cache=small_cache
        )
