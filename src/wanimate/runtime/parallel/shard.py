"""Weights spread over the ranks (FSDP2): each keeps its part of every block, and a block is whole only while it computes."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from wanimate.model.transformer import AnimateTransformer
from wanimate.runtime.parallel.ranks import Ranks


def sharded(transformer: AnimateTransformer, ranks: Ranks) -> AnimateTransformer:
    """A transformer on `ranks.device` with 1/n of the weights of blocks and fusers; `transformer` stays as and where it is.

    All ranks have to call it, and the result, in step. One block at a time is brought to the device, so that the whole
    network need not fit there. What is not in blocks (0.3 B of the 14B's 17.3 B parameters) is on every rank.
    """
    view = copy.deepcopy(transformer, {id(t): t for t in (*transformer.parameters(), *transformer.buffers())})
    mesh = init_device_mesh(ranks.device.type, (ranks.count,))
    units: list[nn.Module] = [*view.blocks, *view.face_adapter.fuser_blocks]
    in_units = {id(p) for unit in units for p in unit.parameters()}
    for module in view.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in cast(dict[str, Any], table).items():
                if tensor is not None and id(tensor) not in in_units:
                    moved = tensor.to(ranks.device)
                    table[name] = nn.Parameter(moved, requires_grad=False) if table is module._parameters else moved
    for unit in units:
        fully_shard(unit, mesh=mesh)
        register_fsdp_forward_method(unit, "keys_values")
    whole = {p for p in view.parameters() if not isinstance(p, torch.distributed.tensor.DTensor)}
    fully_shard(view, mesh=mesh, ignored_params=whole)
    for method in ("context", "run_blocks"):
        register_fsdp_forward_method(view, method)
    return view
