"""A network with all of its attention, whose tokens are in another order in its blocks."""

from __future__ import annotations

import copy
from typing import Any

from wanimate.model.transformer import AnimateTransformer, Context
from wanimate.runtime.patches import install, method
from wanimate.runtime.sparse.layout import BlockSizes, layout


def in_order(model: AnimateTransformer, sizes: BlockSizes) -> AnimateTransformer:
    """A copy whose blocks get their tokens in the order of the layout."""

    def context(me: AnimateTransformer, *given: Any) -> Context:
        found = AnimateTransformer.context(me, *given)
        return found.arranged(layout(found.grid, sizes, found.pose.device).places)

    copied = copy.deepcopy(model)
    install(copied, "order", [method(copied, "context", context)])
    return copied
