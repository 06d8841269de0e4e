"""Data: image sets by name or folder, their splits, and batches that are a function of seed and step.

`open_data` finds the set and reads its metadata, `DataSource.load` fixes resolution and device, `Data.check` looks at every image of every
split, and `Data` hands out batches: from one uint8 tensor where the set is small, through worker processes where it is not.
"""

from nas.data.augmentation import Augmentation
from nas.data.batches import Data, Kept
from nas.data.seeding import seed_step
from nas.data.sources import DataSource, open_data

__all__ = ["Augmentation", "Data", "DataSource", "Kept", "open_data", "seed_step"]
