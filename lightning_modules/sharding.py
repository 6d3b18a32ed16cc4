"""The frozen backbone spread over the processes of a run (FSDP2); complete adapters on each.

Only frozen weights are sharded, and frozen weights have no gradient, optimizer or place in a
checkpoint. So DDP goes on averaging the adapters' gradients, and optimizer, average and checkpoints
are what they are without sharding.
"""

import lightning.pytorch as L
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from musicinfuser.errors import UserError
from musicinfuser.memory.settings import MemorySettings
from musicinfuser.networks.backbone import BackboneSpec
from musicinfuser.networks.music_model import MusicModel


def check_shardable(backbone: BackboneSpec, memory: MemorySettings) -> None:
    """Refuse settings that a shared backbone cannot have.

    Raises:
        UserError: Weights are quantised, or come from the host.
    """
    if backbone.quantize:
        raise UserError(
            "model.shard_backbone shares out weights in their own type; set "
            "model.backbone.quantize to null."
        )
    if memory.stream_blocks or memory.offload_inputs:
        raise UserError(
            "model.shard_backbone gathers each block's weights from the devices, "
            "memory.stream_blocks and memory.offload_inputs bring them and their inputs from "
            "the host; set either shard_backbone or the other two to false."
        )


def shard_backbone(trainer: L.Trainer, model: MusicModel) -> None:
    """Keep a share of the backbone's weights on each process of a training.

    The processes of a node share one copy; a block's weights are gathered where it runs, forward
    and backward, and dropped after it. The layers that give its modulations run before the blocks
    do and are gathered by themselves, unless they are in the host's memory: there each process
    keeps them whole. All processes must run the model equally often.
    """
    mesh = init_device_mesh(
        trainer.strategy.root_device.type,
        (trainer.num_nodes, trainer.num_devices),
        mesh_dim_names=("copy", "share"),
    )
    unsharded = {p for p in model.parameters() if p.requires_grad}
    for block in model.kind.blocks:
        layers = model.kind.modulation_layers(block)
        if model.memory.modulations_on_host:
            unsharded |= {p for layer in layers for p in layer.parameters()}
        elif layers:
            fully_shard(layers, mesh=mesh)
    for part in (*model.kind.blocks, model):
        fully_shard(part, mesh=mesh, ignored_params=unsharded)


def leave_frozen_to_each_process(module: L.LightningModule) -> None:
    """Have DDP broadcast and watch the trained parameters alone.

    Frozen ones come from the same files on every process, and may be shares of weights or lie in
    the host's memory, which DDP cannot take.
    """
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, frozen)


def check_equal_validation(trainer: L.Trainer) -> None:
    """Refuse a validation in which processes would wait for each other's weights for ever.

    Raises:
        ValueError: They have different numbers of batches.
    """
    mine = sum(int(n) for n in trainer.num_val_batches)
    counts = [0] * trainer.world_size
    torch.distributed.all_gather_object(counts, mine)
    if len(set(counts)) > 1:
        raise UserError(
            f"the processes have {counts} batches to validate with, but a sharded backbone runs on "
            f"all of them at once; set data.max_validation_clips to a multiple of {len(counts)}, "
            "with clips of several sizes or lengths also data.validation_batch_size to 1, or "
            "data.validation_source to null."
        )
