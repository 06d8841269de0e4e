"""Optuna's dashboard for a run: notes and pictures put into its studies, and the server on this machine alone."""

from __future__ import annotations

import hashlib
import json
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from nas.searching.finalist_study import digest_of, study_of
from nas.searching.study_storage import Place, full_name, open_storage, study_names

HOST = "127.0.0.1"  # the dashboard knows no password, and can delete studies
TOLD, PICTURES = "nas:told", "nas:pictures"  # attributes of a study that are ours: the digest of what was put there, and which artifacts


@dataclass(frozen=True)
class Telling:
    """What is put into a study.

    Attributes:
        note: of the study, in Markdown; `{name}` stands for the address of a picture, `{finalists}` for that of the finalists' study.
        notes: of the trials of a network, by its key, here and in the finalists' study.
        pictures: by file name.
        of_finalists: the note of the finalists' study; `{search}` stands for the address of this one.
    """

    note: str
    notes: Mapping[str, str]
    pictures: Mapping[str, bytes]
    of_finalists: str = ""

    @property
    def digest(self) -> str:
        told = hashlib.sha256(json.dumps([self.note, dict(self.notes), self.of_finalists], sort_keys=True).encode())
        for name, content in sorted(self.pictures.items()):
            told.update(name.encode() + content)
        return told.hexdigest()[:12]


def tell(place: Place, artifacts: Path, tellings: Mapping[str, Telling]) -> None:
    """Puts notes and pictures into the studies of a run, in place of what was put there before; nothing where they are there already.

    Args:
        place: of the studies; whoever calls holds the run.
        artifacts: folder of the pictures.
        tellings: by study.

    Raises:
        ValueError: the place cannot be used.
    """
    with open_storage(place) as storage:
        known = study_names(place, storage)
        for name, telling in tellings.items():
            study = optuna.load_study(study_name=full_name(place, name), storage=storage)
            finalists = optuna.load_study(study_name=known[study_of(name)], storage=storage) if study_of(name) in known else None
            there = f"{telling.digest} {finalists and digest_of(finalists)}"
            if storage.get_study_system_attrs(study._study_id).get(TOLD) == there:
                continue
            addresses = _put_pictures(study, artifacts, telling.pictures)
            addresses |= {"search": _address(study), "finalists": _address(finalists) if finalists else _address(study)}
            _save_notes(study, telling.note, telling.notes, addresses)
            if finalists:
                _save_notes(finalists, telling.of_finalists, telling.notes, addresses)
            storage.set_study_system_attr(study._study_id, TOLD, there)


def note_of(place: Place, name: str) -> str:
    """The address of a study's note on the dashboard's server.

    Raises:
        ValueError: the place cannot be used.
    """
    with open_storage(place) as storage:
        return f"{_address(optuna.load_study(study_name=full_name(place, name), storage=storage))}/note"


def _put_pictures(study: optuna.Study, artifacts: Path, pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Their addresses by file name; what was there before is gone."""
    from optuna_dashboard.artifact import get_artifact_path

    artifacts.mkdir(exist_ok=True)
    storage, store, addresses, made = study._storage, FileSystemArtifactStore(artifacts), dict[str, str](), list[str]()
    for old in storage.get_study_system_attrs(study._study_id).get(PICTURES, []):
        (artifacts / old).unlink(missing_ok=True)
        storage.set_study_system_attr(study._study_id, f"artifacts:{old}", json.dumps(None))
    with tempfile.TemporaryDirectory() as folder:
        for file, content in pictures.items():
            (Path(folder) / file).write_bytes(content)
            made.append(upload_artifact(artifact_store=store, file_path=str(Path(folder) / file), study_or_trial=study))
            addresses[file] = get_artifact_path(study, made[-1])
    storage.set_study_system_attr(study._study_id, PICTURES, made)
    return addresses


def _save_notes(study: optuna.Study, note: str, notes: Mapping[str, str], addresses: Mapping[str, str]) -> None:
    from optuna_dashboard import save_note

    save_note(study, _filled(note, addresses))
    for trial in study.get_trials(deepcopy=False):
        if of_trial := notes.get(trial.user_attrs.get("arch_key", "")):
            save_note(optuna.trial.Trial(study, trial._trial_id), _filled(of_trial, addresses))


def _address(study: optuna.Study) -> str:
    return f"/dashboard/studies/{study._study_id}"


def _filled(note: str, addresses: Mapping[str, str]) -> str:
    for name, address in addresses.items():
        note = note.replace(f"{{{name}}}", address)
    return note


def check_port(port: int) -> None:
    """Raises a ValueError where another program listens there."""
    with socket.socket() as tried:
        if tried.connect_ex((HOST, port)) == 0:
            raise ValueError(f"--port: in use: got {port}; accepted: a free one. Give another, such as {port + 1}.")


def serve(place: Place, artifacts: Path, port: int) -> None:
    """Shows the studies of a place, on a server those of all its runs, at http://127.0.0.1:`port` until the process ends."""
    import optuna_dashboard

    artifacts.mkdir(exist_ok=True)
    with open_storage(place) as storage:
        optuna_dashboard.run_server(storage, host=HOST, port=port, artifact_store=FileSystemArtifactStore(artifacts))
