"""What a network costs: counted by arithmetic (`counts.py`), or timed (`latency.py`)."""

import sys
from types import ModuleType

from nas.cost.counts import cost, layer_cost, stage_costs
from nas.networks.architecture import Architecture
from nas.quantities import Cost

__all__ = ["cost", "layer_cost", "stage_costs"]


class _Room(ModuleType):
    """`from nas import cost` gives this module, whatever was imported before: so it counts when it is called."""

    def __call__(self, architecture: Architecture) -> Cost:
        return cost(architecture)


sys.modules[__name__].__class__ = _Room
