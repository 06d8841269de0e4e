"""Laws of the readers: every layout gives the same images, and what is wrong with one is said in a line."""

import itertools
import os
import pickle
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import (
    equal,
    line,
    random_image,
    take,
    write_fashion_mnist,
    write_folder,
    write_image,
    write_parquet,
    write_parquet_set,
    write_set,
)
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from nas.data import Augmentation, Data, open_data
from nas.data.libraries import _from_torchvision
from nas.machine import cores

CPU = torch.device("cpu")
PLAIN = Augmentation()


def shown(data: Data, split: str) -> list[tuple[bytes, int]]:
    """Pixels and label of each image of a split, in order."""
    return [(x.numpy().tobytes(), int(target)) for x, target in data.evaluation_batches(split, 1)]


# Sources


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    source = open_data("digits")
    assert (source.name, source.channels, source.resolution) == ("digits", 1, 8)
    assert source.classes == tuple("0123456789")
    own = source.load(8, CPU)
    x = torch.cat([x for split in ("train", "test") for x, _ in own.evaluation_batches(split, 100)])
    values = (x * own.std[0] + own.mean[0]) * 16
    theirs = sorted(map(tuple, load_digits().images.reshape(-1, 64).astype(int).tolist()))
    assert sorted(map(tuple, values.round().int().reshape(-1, 64).tolist())) == theirs
    assert own.size("train") + own.size("test") == 1797
    assert next(source.load(16, CPU).evaluation_batches("test", 7))[0].shape == (7, 1, 16, 16)


def test_folder_lists_what_image_folder_lists(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    for deeper in ("deeper", "deeper-still", "deeper/down"):
        write_image(folder / "train" / "ant" / deeper / "x.PNG", 99)
    for ending in ("jpg", "jpeg", "bmp", "ppm", "tif", "tiff", "webp"):
        write_image(folder / "train" / "bee" / f"other.{ending}", 99)
    (folder / "train" / "ant" / "notes.txt").write_text("no image")
    source = open_data(str(folder))
    theirs = ImageFolder(str(folder / "train"))
    images = source._found.train
    assert [(images.place(index), label) for index, label in enumerate(images.labels.tolist())] == theirs.samples
    assert source.classes == tuple(theirs.classes)


def test_parquet_pixels_and_labels_are_the_files(tmp_path: Path) -> None:
    source = open_data(str(write_parquet_set(tmp_path)))
    assert (source.classes, source.channels, source.resolution) == (("ant", "bee"), 3, 12)
    data = source.load(12, CPU)
    x, target = next(data.evaluation_batches("train", 20))
    theirs = torch.stack([v2.functional.pil_to_tensor(random_image(seed)) for seed in range(20)])
    restored = x * torch.tensor(data.std).view(-1, 1, 1) + torch.tensor(data.mean).view(-1, 1, 1)
    assert torch.equal((restored * 255).round().to(torch.uint8), theirs)
    assert target.tolist() == [0, 1] * 10


def test_parquet_without_names_counts_its_classes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [0, 1, 2] * 4, None, column="photograph")
    write_parquet(tmp_path / "test.parquet", [2], None, column="photograph")
    assert open_data(str(tmp_path)).classes == ("0", "1", "2")


def test_torchvision_set_is_read_from_files_alone(tmp_path: Path) -> None:
    source = open_data("FashionMNIST", write_fashion_mnist(tmp_path))
    assert (source.name, source.channels, source.resolution, len(source.classes)) == ("fashionmnist", 1, 28, 10)
    data = source.load(32, CPU)
    assert (data.size("train"), data.size("test")) == (40, 10)
    assert next(data.evaluation_batches("test", 4))[1].tolist() == [0, 1, 2, 3]


def test_torchvision_is_never_told_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []

    def constructed(root: str, **options: object) -> None:
        told.append(options["download"])
        raise RuntimeError("not found")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", constructed)
    line(open_data, "FashionMNIST", tmp_path)
    assert told == [False]


def test_a_home_folder_is_known_and_a_root_says_that_a_name_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "FashionMNIST")
    root = write_fashion_mnist(tmp_path / "root")
    assert len(open_data("~/FashionMNIST").classes) == len(open_data("FashionMNIST").classes) == 2
    assert len(open_data("FashionMNIST", Path("~/root")).classes) == len(open_data("FashionMNIST", root).classes) == 10


def test_channels_and_resolution_come_from_the_images(tmp_path: Path) -> None:
    grey = open_data(str(write_folder(tmp_path / "grey", mode="L")))
    assert (grey.channels, grey.resolution) == (1, 12)
    mixed = write_folder(tmp_path / "mixed", per_class=3)
    for number in range(20):
        write_image(mixed / "train" / "ant" / f"{number:03}.png", number, size=(40, 20 + number % 3))
    source = open_data(str(mixed))
    assert (source.channels, source.resolution) == (3, 21)


@pytest.mark.parametrize(
    ("train", "val", "test"), [("train", "val", "test"), ("Train", "VALIDATION", "Test"), ("training", "Valid", "TESTING")]
)
def test_val_beside_test_is_held_out(tmp_path: Path, train: str, val: str, test: str) -> None:
    data = open_data(str(write_folder(tmp_path / "three", (train, val, test), 4))).load(12, CPU)
    assert [data.size(split) for split in ("fit", "held_out", "train", "test")] == [8, 8, 16, 8]
    as_test = open_data(str(write_folder(tmp_path / "three", (train, val, test), 4) / ".." / "three")).load(12, CPU)
    assert shown(data, "held_out") == shown(as_test, "train")[8:]
    assert not set(shown(data, "test")) & set(shown(data, "train"))
    (tmp_path / "two").mkdir()
    for split in (train, val):
        shutil.copytree(tmp_path / "three" / split, tmp_path / "two" / split)
    two = open_data(str(tmp_path / "two")).load(12, CPU)
    assert (two.size("train"), shown(two, "test")) == (8, shown(data, "held_out"))
    shutil.copytree(tmp_path / "two" / val, tmp_path / "two" / "valid")
    assert "one twice" in line(open_data, str(tmp_path / "two"))


def names(folder: Path, split: str) -> set[str]:
    images, indices = open_data(str(folder)).split(split)
    return {os.path.relpath(images.place(index), folder) for index in indices}


def test_of_classes_without_a_split_the_same_fifth_is_the_test_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"ant": 40, "bee": 22, "train": 12}  # one is called like a split
    for name, count in counts.items():
        for number in range(count):
            write_image(tmp_path / "photos" / name / f"{number:03}.png", number)
    (tmp_path / "photos/test.csv").write_text("")
    train, test = (names(tmp_path / "photos", split) for split in ("train", "test"))
    assert not train & test and len(train | test) == sum(counts.values()) and len(test) == round(sum(counts.values()) / 5)
    for name, count in counts.items():
        assert abs(sum(each.startswith(name) for each in test) - count / 5) < 1
    assert {each.split("/")[1] for each in test if "ant" in each} != {f"{number:03}.png" for number in range(8)}, "not the first ones"
    first = open_data(str(tmp_path / "photos"))
    assert "test" in first.note and f"{len(test)} of its 74 images" in first.note
    shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    (tmp_path / "link").symlink_to("copy")
    monkeypatch.chdir(tmp_path / "photos")
    for same in (tmp_path / "copy", tmp_path / "link", Path(".")):
        assert names(same, "test") == test and open_data(str(same)).fingerprint == first.fingerprint
    for number in range(40, 48):
        write_image(tmp_path / "copy/ant" / f"{number:03}.png", number)
    assert open_data(str(tmp_path / "copy")).fingerprint != first.fingerprint
    assert len(names(tmp_path / "copy", "test") & train) <= 3, "hardly any that was trained on"


def test_what_is_neither_split_nor_classes_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "sets/cifar")
    write_folder(tmp_path / "sets/dogs")
    assert "no data set in it" in line(open_data, str(tmp_path / "sets"))
    for name in ("train", "test", "more", "others"):
        write_image(tmp_path / "flat" / name / "0.png", 0)
    assert "no class folder" in line(open_data, str(tmp_path / "flat"))
    for name, count in (("ant", 6), ("bee", 6), ("cow", 0)):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number in range(count):
            write_image(tmp_path / "classes" / name / f"{number}.png", number)
    assert "classes cow" in line(open_data, str(tmp_path / "classes"))


@pytest.mark.parametrize("layout", ["folder", "parquet", "tar"])
def test_images_travel_to_processes_that_are_not_forks(tmp_path: Path, layout: str) -> None:
    images = open_data(str(write_set(tmp_path, layout)))._found.train
    copy = pickle.loads(pickle.dumps(images))
    assert np.array_equal(copy.labels, images.labels)
    assert copy.open(7).tobytes() == images.open(7).tobytes() and copy.place(7) == images.place(7)


def test_every_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path)
    read, scandir = [], os.scandir
    monkeypatch.setattr("os.scandir", lambda path: read.append(os.path.abspath(path)) or scandir(path))
    open_data(str(folder)).fingerprint  # noqa: B018
    classes = [path for path in read if os.path.basename(path) in ("ant", "bee")]
    assert sorted(classes) == sorted(str(path) for path in folder.glob("*/*"))


# Parquet in shards


def reshard(folder: Path, into: Path, rows: int, groups: int, test: str = "test") -> Path:
    """Writes a Parquet set anew, as the hub has it: files of `rows` rows, row groups of `groups`."""
    into.mkdir(parents=True)
    for split, name in (("train", "train"), ("test", test)):
        table = pq.read_table(folder / f"{split}.parquet")
        parts = [table.slice(start, rows) for start in range(0, len(table), rows)]
        for number, part in enumerate(parts):
            pq.write_table(part, into / f"{name}-{number:05}-of-{len(parts):05}.parquet", row_group_size=groups)
    return into.parent


@pytest.mark.parametrize("memory_limit, loaders", [(2**30, 2), (0, 0), (0, 2)])
def test_shards_are_the_same_images_as_one_file(tmp_path: Path, memory_limit: int, loaders: int) -> None:
    whole = open_data(str(write_parquet_set(tmp_path))).load(12, CPU)
    source = open_data(str(reshard(tmp_path, tmp_path / "hub" / "data", 7, 3)))
    data = source.load(12, CPU, loaders, memory_limit)
    for split in ("fit", "held_out", "train", "test"):
        assert shown(data, split) == shown(whole, split)
    augmentation = Augmentation(crop="pad", flip=True)
    assert equal(take(data, 5, augmentation=augmentation), take(whole, 5, augmentation=augmentation))


def test_shards_with_validation_hold_it_out_and_missing_ones_are_counted(tmp_path: Path) -> None:
    hub = reshard(write_parquet_set(tmp_path), tmp_path / "hub" / "data", 7, 3, test="validation")
    assert open_data(str(hub)).load(12, CPU).size("test") == 3
    shutil.copy(hub / "data" / "validation-00000-of-00001.parquet", hub / "data" / "test.parquet")
    three = open_data(str(hub)).load(12, CPU)
    assert shown(three, "held_out") == shown(three, "test") == shown(three, "train")[20:]
    (hub / "data" / "train-00001-of-00003.parquet").unlink()
    assert "got 2 of train-*-of-00003.parquet; accepted: 3" in line(open_data, str(hub))
    reshard(tmp_path, hub / "other", 7, 3)
    assert "got data, other" in line(open_data, str(hub))


def test_a_test_split_without_labels_is_none(tmp_path: Path) -> None:
    names = ["ant", "bee"]
    for split, labels in (("train", [0, 1] * 10), ("validation", [0, 1, 1]), ("test", [-1, -1])):
        write_parquet(tmp_path / f"{split}.parquet", labels, names)
    data = open_data(str(tmp_path)).load(12, CPU)
    assert (data.size("train"), data.size("test")) == (20, 3)


def test_a_broken_row_is_counted_through_the_files_of_its_split(tmp_path: Path) -> None:
    hub = reshard(write_parquet_set(tmp_path), tmp_path / "hub" / "data", 7, 3)
    path = hub / "data" / "train-00001-of-00003.parquet"
    table = pq.read_table(path)
    rows = table.column("img").to_pylist()
    rows[4]["bytes"] = b"nothing"
    pq.write_table(table.set_column(0, "img", pa.array(rows, table.schema.field("img").type)), path)
    assert line(lambda: open_data(str(hub)).load(12, CPU).check()).startswith(f"{hub}: train: row 11: broken image")


# Libraries


def test_tar_files_are_the_same_images_as_folders(tmp_path: Path) -> None:
    folder, packed = write_folder(tmp_path / "folder"), tmp_path / "packed"
    packed.mkdir()
    for split, name in itertools.product(("train", "val"), ("ant/10.png", "ant/9.png", "10/0.png", "10/1.png", "9/0.png", "9/1.png")):
        write_image(folder / split / name, len(split) + sum(map(ord, name)))  # names that sort otherwise as numbers
    for split in ("train", "val"):
        with tarfile.open(packed / f"{split}.tar", "w") as archive:
            archive.add(folder / split, arcname=".")
    data, source = open_data(str(folder)).load(12, CPU), open_data(str(packed))
    assert source.classes == data.classes
    for loaders in (0, 2):
        streamed = source.load(12, CPU, loaders, memory_limit=0)
        for split in ("held_out", "train", "test"):
            assert shown(streamed, split) == shown(data, split)
    (packed / "train.tar").write_bytes(b"no tar")
    assert line(open_data, str(packed)).startswith(f"{packed / 'train.tar'}: unreadable")


def test_sets_of_the_hub_are_what_the_library_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    folder = reshard(write_parquet_set(tmp_path), tmp_path / "hub" / "data", 7, 3)
    local, asked = open_data(str(folder)), []

    def load(*names: str, **options: object) -> object:
        asked.append((names, options["cache_dir"]))
        if names[0] != "owner/insects":
            raise OSError("404\nnot found")
        files = {split: [str(path) for path in folder.glob(f"data/{split}-*")] for split in ("train", "test")}
        return {split: datasets.Dataset.from_parquet(sorted(those)) for split, those in files.items()}

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = open_data("hfds/owner/insects", tmp_path / "cache")
    assert (source.name, source.fingerprint) == ("insects", local.fingerprint)
    assert shown(source.load(12, CPU), "test") == shown(local.load(12, CPU), "test")
    assert open_data("hfds/owner/insects/small").classes == source.classes
    assert asked == [(("owner/insects",), str(tmp_path / "cache")), (("owner/insects", "small"), None)]
    assert "got 404 not found" in line(open_data, "hfds/owner/else")
    assert "cannot be had" in line(open_data, "hfds/owner")


def test_images_of_the_hub_may_be_files_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    folder = write_folder(tmp_path / "files")
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *names, cache_dir, load=datasets.load_dataset: load("imagefolder", data_dir=str(folder))
    )
    theirs, ours = open_data("hfds/owner/files"), open_data(str(folder))
    assert theirs.classes == ours.classes
    assert sorted(shown(theirs.load(12, CPU), "train")) == sorted(shown(ours.load(12, CPU), "train"))
    (folder / "train/ant/000.png").rename(folder / "train/ant/0000.png")
    assert open_data("hfds/owner/files").fingerprint != theirs.fingerprint


def test_torchvisions_arrays_and_files_are_taken_whatever_they_are_called(tmp_path: Path) -> None:
    planes = np.random.default_rng(0).integers(0, 256, (5, 3, 8, 8), np.uint8)
    images = _from_torchvision(SimpleNamespace(data=planes, labels=np.arange(5)), "STL10")  # as STL10 and SVHN have it
    assert np.array_equal(np.asarray(images.open(2)), planes[2].transpose(1, 2, 0)) and images.labels.tolist() == [0, 1, 2, 3, 4]
    folder = write_folder(tmp_path)
    path = folder / "train" / "bee" / "001.png"
    for names in ({"_samples": [(str(path), 1)]}, {"_image_files": [path], "_labels": [1]}, {"_images": [path], "_labels": [1]}):
        images = _from_torchvision(SimpleNamespace(root=str(folder), **names), "GTSRB, DTD, OxfordIIITPet")
        assert images.place(0) == str(path) and images.labels.tolist() == [1]


# Identity


@pytest.mark.parametrize("layout", ["folder", "parquet", "tar"])
def test_the_fingerprint_is_of_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    made = write_set(tmp_path / "set", layout)
    monkeypatch.chdir(tmp_path)
    first = open_data(str(made)).fingerprint
    assert len(first) == 12 and int(first, 16) >= 0
    shutil.copytree(made, tmp_path / "elsewhere" / "copy")
    for same in ("set", "./set/", "elsewhere/../set", "elsewhere/copy"):
        assert open_data(same).fingerprint == first
    monkeypatch.chdir(made)
    assert open_data(".").fingerprint == first
    if layout == "tar":
        write_image(tmp_path / "other" / "ant" / "000.png", 0, size=(40, 12))
        write_image(tmp_path / "other" / "bee" / "000.png", 1)
        changed = []
        for more in (0, 1):  # the same name in the same place, another size
            with tarfile.open(made / "val.tar", "w") as archive:
                archive.add(tmp_path / "other", arcname=".")
            changed.append(open_data(".").fingerprint)
            write_image(tmp_path / "other" / "ant" / "000.png", 0, size=(40 + 40 * more, 13))
        assert len({first, *changed}) == 3


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_fingerprint_tells_every_change_of_a_folder(tmp_path: Path, split: str) -> None:
    folder = write_folder(tmp_path)
    seen = [open_data(str(folder)).fingerprint]
    image = folder / split / "ant" / "003.png"
    write_image(image, 5, size=(13, 12))
    seen.append(open_data(str(folder)).fingerprint)
    image.rename(folder / split / "bee" / "003x.png")  # another class
    seen.append(open_data(str(folder)).fingerprint)
    write_image(image, 6)
    seen.append(open_data(str(folder)).fingerprint)
    (folder / split / "bee" / "009.png").unlink()
    seen.append(open_data(str(folder)).fingerprint)
    (folder / split / "bee" / "008.png").rename(folder / split / "bee" / "080.png")
    seen.append(open_data(str(folder)).fingerprint)
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("split, labels", [("train", [0, 1] * 10), ("test", [0, 1, 1])])
def test_the_fingerprint_tells_every_change_of_parquet(tmp_path: Path, split: str, labels: list[int]) -> None:
    folder = write_parquet_set(tmp_path)
    seen = [open_data(str(folder)).fingerprint]
    path = folder / f"{split}.parquet"
    for changed in ([*labels[:-1], 1 - labels[-1]], labels[:-1], [*labels, 0]):
        write_parquet(path, changed, ["ant", "bee"])
        seen.append(open_data(str(folder)).fingerprint)
    write_parquet(path, labels, ["ant", "bee"])
    assert open_data(str(folder)).fingerprint == seen[0]
    table = pq.read_table(path)
    rows = table.column("img").to_pylist()
    rows[1]["bytes"] += b"x"
    pq.write_table(table.set_column(0, "img", pa.array(rows, table.schema.field("img").type)), path)
    seen.append(open_data(str(folder)).fingerprint)
    assert len(set(seen)) == len(seen)


def test_the_fingerprint_tells_arrays_apart(tmp_path: Path) -> None:
    first = open_data("FashionMNIST", write_fashion_mnist(tmp_path / "a"))
    again = open_data("FashionMNIST", write_fashion_mnist(tmp_path / "b"))
    assert first.fingerprint == again.fingerprint
    again._found.test.pixels[3, 2, 1] ^= 1
    assert open_data("FashionMNIST", tmp_path / "b").fingerprint == first.fingerprint
    del again.__dict__["fingerprint"]
    assert again.fingerprint != first.fingerprint


def test_cores_are_those_the_process_may_use_and_on_macos_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 8}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores() == 6


def test_there_is_a_loader_for_every_core_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_data(str(write_folder(tmp_path)))
    pools, processes = [], []
    from nas.data import decoding

    real_pool, real_loader = decoding.ThreadPoolExecutor, decoding.DataLoader
    monkeypatch.setattr(decoding, "ThreadPoolExecutor", lambda num: pools.append(num) or real_pool(num))
    monkeypatch.setattr(
        decoding,
        "DataLoader",
        lambda *args, num_workers, **more: (
            processes.append(num_workers)
            or real_loader(*args, num_workers=0, collate_fn=more["collate_fn"], batch_sampler=more["batch_sampler"])
        ),
    )
    monkeypatch.setattr("nas.data.sources.cores", lambda: 5)
    for asked, threads in ((None, 5), (3, 3), (0, 1)):
        next(source.load(12, CPU, asked, memory_limit=0).evaluation_batches("test", 4))
        assert set(pools) == {threads} and processes == [5 if asked is None else asked]
        pools.clear(), processes.clear()


# Bad input


def test_unknown_names_are_answered_with_the_nearest() -> None:
    assert "Did you mean 'CIFAR10'?" in line(open_data, "cifar_10")
    assert "Did you mean 'digits'?" in line(open_data, "digist")
    assert "--data-root FOLDER" in line(open_data, "CIFAR10")


def test_torchvision_files_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    assert "FashionMNIST cannot be opened" in line(open_data, "FashionMNIST", tmp_path)
    assert "CIFAR10 cannot be opened" in line(open_data, "CIFAR10", tmp_path)
    assert "no such folder" in line(open_data, "CIFAR10", tmp_path / "none")


def test_folders_without_a_data_set_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such folder" in line(open_data, str(tmp_path / "none"))
    assert "an empty folder" in line(open_data, str(tmp_path))
    (tmp_path / "notes.txt").write_text("")
    assert "notes.txt" in line(open_data, str(tmp_path))
    assert "unreadable" in line(open_data, str(tmp_path / "notes.txt"))
    write_image(tmp_path / "val" / "ant" / "0.png", 0)
    assert "missing split" in line(open_data, str(tmp_path))
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "train").mkdir()
    assert "got no class folder" in line(open_data, str(tmp_path))
    write_image(tmp_path / "train" / "ant" / "0.png", 0)
    assert "missing split" in line(open_data, str(tmp_path))
    (tmp_path / "val").mkdir()
    assert "got no class folder" in line(open_data, str(tmp_path))

    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    assert "got Permission denied" in line(open_data, str(tmp_path))


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    for split in ("train", "val"):
        (folder / split / "cat").mkdir()
    message = line(open_data, str(folder))
    assert "classes cat" in message and message.startswith(str(folder))


def test_a_class_that_a_split_has_no_image_of_is_refused_in_train_and_told_elsewhere(tmp_path: Path) -> None:
    """Where the names stand beside the images: images of it in val do not help, since they are held out."""
    names, each = ["ant", "bee", "cat"], [0, 1, 2] * 4
    write_parquet(tmp_path / "train.parquet", [0, 1] * 6, names)
    for split in ("val", "test"):
        write_parquet(tmp_path / f"{split}.parquet", each, names)
    assert "got none of class 'cat' in train" in line(open_data, str(tmp_path))
    write_parquet(tmp_path / "train.parquet", each, names)
    assert open_data(str(tmp_path)).note == ""
    write_parquet(tmp_path / "val.parquet", [0, 1], names)
    write_parquet(tmp_path / "test.parquet", [2], names)
    assert open_data(str(tmp_path)).note == (
        "No image of 'ant' and 1 other class in test: no accuracy there tells of it. No image of 'cat' in val: no accuracy there tells of it."
    )


def test_classes_that_differ_between_splits_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    write_image(folder / "val" / "cat" / "0.png", 0)
    assert "'cat'" in line(open_data, str(folder))


@pytest.mark.parametrize("memory_limit, loaders", [(2**30, 2), (0, 0), (0, 1)], ids=["memory", "streaming", "worker"])
def test_a_broken_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_limit: int, loaders: int) -> None:
    folder = write_folder(tmp_path)
    monkeypatch.setattr("nas.data.batches.MEASURED", 3)
    monkeypatch.setattr("nas.data.images.SURVEYED", 3)
    images = open_data(str(folder))._found.train
    index = next(index for index in range(1, 20) if index not in images.sample(3))
    broken = Path(images.place(index))

    def use() -> None:
        data = open_data(str(folder)).load(12, CPU, loaders, memory_limit)
        list(data.evaluation_batches("train", 4))

    whole = broken.read_bytes()
    for content, reason in ((whole[:150], "got "), (b"GIF", "got no known image format")):
        broken.write_bytes(content)
        assert line(use).startswith(f"{broken}: broken image: {reason}")


def test_a_transparent_palette_is_decoded_without_a_warning(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    image = random_image(0).quantize(16)
    image.save(folder / "train" / "ant" / "000.png", transparency=bytes(range(0, 160, 10)))
    x = next(open_data(str(folder)).load(12, CPU, 0).evaluation_batches("train", 1))[0]  # a warning is an error here
    assert x.shape == (1, 3, 12, 12)


def test_images_of_16_bits_are_refused_rather_than_clipped(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    Image.fromarray(np.full((12, 12), 4000, np.uint16)).save(folder / "train" / "ant" / "000.png")
    assert "more than 8 bits" in line(open_data(str(folder)).load(12, CPU).check)


def test_damaged_parquet_is_named(tmp_path: Path) -> None:
    write_parquet_set(tmp_path)
    train = tmp_path / "train.parquet"
    whole = train.read_bytes()
    train.write_bytes(whole[: len(whole) // 2])
    assert line(open_data, str(tmp_path)).startswith(f"{train}: unreadable")
    train.write_bytes(whole[:4] + bytes(60) + whole[64:])  # the footer is whole, the first page is not
    assert line(open_data, str(tmp_path)).startswith(f"{tmp_path}: cannot be had: got ")
    train.write_bytes(b"")
    assert str(train) in line(open_data, str(tmp_path))
    train.unlink()
    assert "missing split" in line(open_data, str(tmp_path))


def test_parquet_columns_and_labels_are_checked(tmp_path: Path) -> None:
    write_parquet_set(tmp_path)
    train, test = tmp_path / "train.parquet", tmp_path / "test.parquet"
    for path in (train, test):
        pq.write_table(pq.read_table(path).drop_columns(["img"]), path)
    assert "no image column: got label" in line(open_data, str(tmp_path))
    write_parquet_set(tmp_path)
    for path in (train, test):
        pq.write_table(pq.read_table(path).rename_columns(["img", "lable"]), path)
    assert "no label column: got img, lable" in line(open_data, str(tmp_path))
    write_parquet_set(tmp_path)
    write_parquet(train, [0, 2] * 5, ["ant", "bee"])
    assert "got 2; accepted 0 to 1" in line(open_data, str(tmp_path))
    write_parquet(train, [0] * 5, ["ant", "bee"])
    assert "'bee'" in line(open_data, str(tmp_path))
    write_parquet(train, [0, None] * 5, ["ant", "bee"])
    assert "missing label: got 5" in line(open_data, str(tmp_path))
    write_parquet(train, [], ["ant", "bee"])
    assert "cannot be had" in line(open_data, str(tmp_path))
    write_parquet_set(tmp_path)
    write_parquet(test, [0, 1], ["ant", "cat"])
    assert line(open_data, str(tmp_path)).startswith(f"{test}: column 'label' differs")
    write_parquet(test, [0, 7], ["ant", "bee"])
    assert f"{tmp_path}: test: label outside the classes: got 7" in line(open_data, str(tmp_path))


def test_a_broken_parquet_row_is_named(tmp_path: Path) -> None:
    write_parquet_set(tmp_path)
    train = tmp_path / "train.parquet"
    table = pq.read_table(train)
    for value, reason in ((b"nothing", "no known image format"), (None, "no bytes in the row")):
        rows = table.column("img").to_pylist()
        rows[17]["bytes"] = value
        images = pa.array(rows, table.schema.field("img").type)
        pq.write_table(table.set_column(0, "img", images), train)
        message = line(open_data(str(tmp_path)).load(12, CPU).check)
        assert message.startswith(f"{tmp_path}: train: row 17: broken image: got {reason}")


def test_too_few_images_to_hold_out_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, per_class=1)
    assert "too few" in line(open_data(str(folder)).load, 12, CPU)
