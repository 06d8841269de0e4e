"""What a network costs: counted by arithmetic (`counts.py`), or timed (`latency.py`)."""

from nas.cost.counts import cost, stage_costs

__all__ = ["cost", "stage_costs"]
