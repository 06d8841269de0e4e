"""What a network costs: counted by arithmetic (`counts.py`), or timed (`latency.py`)."""

from nas.cost.counts import cost, layer_cost, stage_costs

__all__ = ["cost", "layer_cost", "stage_costs"]
