"""What lies in a study's file, as Optuna reads it and not our code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import optuna


@contextlib.contextmanager
def stored(place: Path | str, name: str | None = None) -> Iterator[optuna.Study]:
    """The study of that name in a file or at an address, or the only one."""
    # A file is made and compared with Optuna's version by reading ten files of migrations: those who wrote it have done that.
    storage = optuna.storages.RDBStorage(
        place if isinstance(place, str) else f"sqlite:///{place}", skip_compatibility_check=True, skip_table_creation=True
    )
    try:
        yield optuna.load_study(study_name=name, storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()
