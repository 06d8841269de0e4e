"""What the user is told of a mistake, for tests: a ValueError of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(*words: object) -> Iterator[pytest.ExceptionInfo[ValueError]]:
    """The block must end in a ValueError whose message is one finished line with all of the words in it."""
    with pytest.raises(ValueError) as raised:
        yield raised
    message = str(raised.value)
    assert len(message.splitlines()) == 1 and message.endswith((".", "?")), message
    assert all(str(word) in message for word in words), message
    assert len(message) < 1200
