"""Broken images that nobody saw before they were used: a long training goes on without a few of them, and says which."""

from collections.abc import Iterable, Sequence
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from nas.data.images import REPLACE, Broken, Images, Unreadable, Unusable, picture

EACH = 1000  # images, for each broken one that is gone on with


class Damage:
    """The broken images among some, as far as they were met.

    In training the next image of the split stands for a broken one; who judges goes without it. Of several processes each takes note of its own.

    Attributes:
        most: how many may be broken.
    """

    def __init__(self, name: str, images: Images, channels: int) -> None:
        self._name, self._images, self._channels, self._known = name, images, channels, set[int]()
        self.most = max(1, len(images.labels) // EACH)

    def note(self, broken: Iterable[Unusable], what: str, stream: TextIO | None) -> None:
        """Names each once, and says what is done.

        Raises:
            ValueError: There are too many. Names and sizes of all files are what a run goes by, so that others would begin another one.
        """
        for index, message in broken:
            if index in self._known:
                continue
            self._known.add(index)
            if len(self._known) > self.most:
                got = f"got {len(self._known)} of {len(self._images.labels):,}, the last of them {self._images.place(index)}"
                raise ValueError(
                    f"data {self._name}: too many broken images: {got}; accepted: {self.most}. Put the files back as they were, from a copy: the same "
                    "command goes on. With other files it is another set, for another --run."
                )
            print(f"{message.removesuffix(REPLACE)}{what} ({len(self._known)} of at most {self.most} such).", file=stream, flush=True)

    def again(self, indices: NDArray[np.int64], broken: Sequence[Broken]) -> list[Unusable]:
        """Which images these are, of those that turn out to be broken once more.

        Raises:
            ValueError: The system does not give one out.
        """
        places, found = {place for place, _ in broken}, list[Unusable]()
        for index in map(int, indices):
            if self._images.place(index) in places:
                try:
                    picture(self._images, index, self._channels)
                except Unreadable:
                    raise
                except ValueError as error:
                    found.append((index, str(error)))
        return found
