"""Laws of the look at all images before anything is spent: what is broken is found in every split and layout, what is whole is let through."""

from __future__ import annotations

import io
import itertools
import os
import shutil
import socket
import struct
import tarfile
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from faults import happened
from image_files import (
    DAMAGED_EXIF,
    EVERYTHING,
    equal,
    line,
    random_image,
    take,
    write_fashion_mnist,
    write_folder,
    write_image,
    write_parquet,
    write_set,
)
from often import often
from PIL import Image
from recording import write_images

from nas.data import Augmentation, Data, open_data
from nas.data.folder import list_images
from nas.data.images import picture, seems_whole
from nas.data.parts import Part
from nas.runs.folder import Run
from nas.runs.interrupt import Stopped
from nas.training import setting as settings
from nas.training.given import Given

CPU = torch.device("cpu")
BOTH = pytest.mark.parametrize("memory_limit", [2**30, 0], ids=["decoded", "headers"])
SPLITS = pytest.mark.parametrize("split", ["train", "val"])


def load(folder: Path, memory_limit: int = 2**30, loaders: int = 2) -> Data:
    return open_data(str(folder)).load(12, CPU, loaders, memory_limit)


def encoded(kind: str, seed: int = 0, **options: object) -> bytes:
    buffer = io.BytesIO()
    random_image(seed, (24, 20)).save(buffer, kind, **options)
    return buffer.getvalue()


def replace_image(folder: Path, layout: str, split: str, number: int, content: bytes) -> str:
    """Puts other bytes in place of an image; gives the place by which messages name it."""
    if layout == "folder":
        path = folder / split / "bee" / f"{number:03}.png"
        path.write_bytes(content)
        return str(path)
    if layout == "parquet":
        split = "test" if split == "val" else split
        table = pq.read_table(folder / f"{split}.parquet")
        rows = table.column("img").to_pylist()
        rows[number]["bytes"] = content
        images = pa.array(rows, table.schema.field("img").type)
        pq.write_table(table.set_column(0, "img", images), folder / f"{split}.parquet")
        return f"{folder}: {split}: row {number}"
    packed, name = folder / f"{split}.tar", f"./bee/{number:03}.png"
    with tarfile.open(packed) as old:
        members = [(member, old.extractfile(member).read()) for member in old if member.isfile()]
    with tarfile.open(packed, "w") as new:
        for member, data in members:
            data = content if member.name == name else data
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return f"{packed}: {name}"


# ---- what is found -----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("layout", ["folder", "parquet", "tar"])
def test_the_first_broken_image_is_named_and_the_others_are_counted(tmp_path: Path, layout: str, memory_limit: int) -> None:
    write_set(tmp_path, layout)
    half = encoded("PNG")[:-300]
    first = replace_image(tmp_path, layout, "train", 1, half)
    others = [replace_image(tmp_path, layout, *where, b"text") for where in (("train", 2), ("val", 1), ("val", 2))]
    message = line(load(tmp_path, memory_limit).check)
    assert message.startswith(f"{first}: broken image: got ")
    assert message.endswith(f" 3 more cannot be used: {', '.join(others)}.")
    for number in range(1, 3):
        replace_image(tmp_path, layout, "train", number, encoded("PNG"))
    assert line(load(tmp_path, memory_limit).check).startswith(f"{others[1]}: broken image: got no known image format")
    happened("broken images", layout, "the first is named and the others counted, before anything is trained")


def of_16_bits() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((12, 12), 4000, np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def png_of_16_bits_of_colour(pixels: np.ndarray) -> bytes:
    """Pillow does not write such files."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 9) + b"IDAT"


CONTENTS = {
    "cut": (encoded("PNG")[:200], "got "),
    "a jpeg cut": (encoded("JPEG")[:-40], "got image file is truncated"),
    "not filled to its end": (encoded("JPEG")[:-200] + bytes(200), "got "),
    "empty": (b"", "got an empty file"),
    "text": (b"no image, but a readme\n", "got no known image format"),
    "0 pixels": (b"GIF89a" + bytes(7) + b"," + bytes(9) + b"\2\2L\1\0;", "got no known image format"),
    "16 bits": (of_16_bits(), "more than 8 bits"),
    "200 megapixels": (png_header(20000, 10000), "too large an image: got 200,000,000 pixels; accepted: at most 178,956,970"),
}


@BOTH
@SPLITS
@pytest.mark.parametrize("fault", CONTENTS)
def test_a_file_that_is_no_whole_image_is_named(tmp_path: Path, fault: str, split: str, memory_limit: int) -> None:
    write_folder(tmp_path, per_class=4)
    content, reason = CONTENTS[fault]
    place = replace_image(tmp_path, "folder", split, 2, content)
    message = line(load(tmp_path, memory_limit).check)
    assert message.startswith(f"{place}: ") and reason in message
    happened("broken images", f"{fault}, in a folder", "named in one line before anything is trained")


def bind_socket(path: Path) -> None:
    where = os.getcwd()
    os.chdir(path.parent)  # a socket's path has a hundred letters at most
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(where)


PLANTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "FIFO": (os.mkfifo, "a FIFO in place of a file"),
    "socket": (bind_socket, "a socket in place of a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device in place of a file"),
    "link to nowhere": (lambda path: path.symlink_to("nowhere.png"), "No such file"),
    "link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
}


@BOTH
@SPLITS
@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path: Path, kind: str, split: str, memory_limit: int) -> None:
    write_folder(tmp_path, per_class=4)
    plant, reason = PLANTED[kind]
    path = tmp_path / split / "bee" / "odd.png"
    plant(path)

    def release() -> None:  # whoever waits for the FIFO after all, so that the test fails and does not hang
        if path.is_fifo():
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(10, release)
    timer.start()
    message = line(lambda: load(tmp_path, memory_limit).check())
    timer.cancel()
    assert message.startswith(f"{path}: broken image: got {reason}")


@BOTH
def test_files_that_may_not_be_read_or_went_away_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_limit: int) -> None:
    write_folder(tmp_path, per_class=4)
    data = load(tmp_path, memory_limit)
    (tmp_path / "val" / "ant" / "002.png").unlink()
    assert "ant/002.png: broken image: got No such file" in line(data.check)
    write_folder(tmp_path, per_class=4)
    real = Image.open

    def guarded(path: object, *others: object) -> Image.Image:
        if "ant/003" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *others)

    monkeypatch.setattr(Image, "open", guarded)
    message = line(load(tmp_path, memory_limit).check)
    assert f"{tmp_path}/train/ant/003.png: broken image: got Permission denied" in message and "Check its permissions" in message


def test_a_set_without_one_readable_image_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    for path in write_folder(tmp_path, per_class=3).rglob("*.png"):
        path.write_bytes(b"text")
    message = line(open_data, str(tmp_path))
    assert message.startswith(f"{tmp_path}/train/ant/000.png: broken image") and "5 more" in message


# ---- what is trusted ---------------------------------------------------------------------------------------------------


CUT = [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("BMP", {}), ("PNG", {})]


@BOTH
@pytest.mark.parametrize("kind, options", CUT, ids=str)
def test_wherever_a_file_is_cut_it_is_found(tmp_path: Path, kind: str, options: dict[str, object], memory_limit: int) -> None:
    """Each length is held against Pillow's own decoding, which lets a JPEG file do without its last two bytes; a PNG file has to come to its end."""
    whole, numbers = encoded(kind, **options), itertools.count()
    expected, bees = [], write_folder(tmp_path) / "val" / "bee"
    for length in [*range(0, len(whole), 23), *range(len(whole) - 14, len(whole) + 1)]:
        content = whole[:length]
        try:
            Image.open(io.BytesIO(content)).load()
            broken = kind == "PNG" and length < len(whole) - 4  # the checksum of nothing
        except Exception:
            broken = True
        path = bees / f"cut{next(numbers):03}.png"
        path.write_bytes(content)
        expected += [path] * broken
    message = line(load(tmp_path, memory_limit).check)
    assert len(expected) > 20 and message.startswith(f"{expected[0]}: broken image")
    assert f" {len(expected) - 1} more cannot be used: such as {expected[1]}, " in message


@BOTH
def test_a_png_file_that_is_zeros_from_somewhere_on_is_found_though_pillow_decodes_it(tmp_path: Path, memory_limit: int) -> None:
    path = max((write_images(tmp_path) / "test").rglob("*.png"))
    path.write_bytes(path.read_bytes()[:-60] + bytes(60))
    Image.open(path).load()
    assert line(load(tmp_path, memory_limit).check).startswith(f"{path}: broken image")


WHOLE = {
    "jpeg": encoded("JPEG"),
    "jpeg of a grey image": (lambda b: (random_image(0, mode="L").save(b, "JPEG"), b.getvalue())[1])(io.BytesIO()),
    "jpeg with something behind its end": encoded("JPEG") + b"a thumbnail, say",
    "png with something behind its end": encoded("PNG") + b"what a program added",
    "webp": encoded("WEBP"),
    "bmp": encoded("BMP"),
    "tiff": encoded("TIFF"),
    "one pixel": (lambda b: (random_image(0, (1, 1)).save(b, "PNG"), b.getvalue())[1])(io.BytesIO()),
    "an animation": encoded("GIF", save_all=True, append_images=[random_image(seed, (24, 20)) for seed in (1, 2)]),
    "damaged EXIF": encoded("JPEG", exif=DAMAGED_EXIF),
    "CMYK": (lambda b: (random_image(0).convert("CMYK").save(b, "JPEG"), b.getvalue())[1])(io.BytesIO()),
    "16 bits of colour": png_of_16_bits_of_colour(np.random.default_rng(0).integers(0, 65536, (20, 24, 3))),
}


def test_of_16_bits_of_colour_the_upper_8_are_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 24, 3))
    (tmp_path / "a.png").write_bytes(png_of_16_bits_of_colour(pixels))
    image, _ = picture(list_images([str(tmp_path / "a.png")])[0], 0, 3)
    assert np.array_equal(np.asarray(image), pixels >> 8)


@BOTH
@pytest.mark.parametrize("kind", WHOLE)
def test_whole_images_of_every_kind_pass_without_a_warning(tmp_path: Path, kind: str, memory_limit: int) -> None:
    """A warning is an error here."""
    write_folder(tmp_path, per_class=4)
    for split in ("train", "val"):
        replace_image(tmp_path, "folder", split, 2, WHOLE[kind])
    data = load(tmp_path, memory_limit, loaders=0)
    ended = kind not in ("webp", "bmp", "tiff", "an animation") and "behind" not in kind
    assert data.check() == (0 if memory_limit else 16 if ended else 14)
    for crop in ("none", "resized"):
        take(data, 3, augmentation=Augmentation(crop=crop), batch=4)
    assert sum(len(x) for x, _ in data.evaluation_batches("test", 8)) == 8
    happened("images of other kinds", kind, "read without a warning")


@BOTH
def test_an_image_of_90_megapixels_is_scaled_without_a_warning(tmp_path: Path, memory_limit: int) -> None:
    folder = write_folder(tmp_path, per_class=4, mode="L")
    Image.new("L", (9500, 9500), 77).save(folder / "val" / "bee" / "002.jpg", quality=50)
    data = load(folder, memory_limit, loaders=0)
    data.check()
    x = torch.cat([x for x, _ in data.evaluation_batches("test", 4)])
    level = (x[6] * data.std[0] + data.mean[0]) * 255  # behind four ants, 000.png and 001.png
    assert (level - 77).abs().max() < 1.5  # JPEG rounds


def test_headers_and_endings_are_enough_for_whole_jpeg_and_png_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    for seed, path in enumerate(tmp_path.glob("*/ant/*.png")):
        path.with_suffix(".jpg").write_bytes(encoded("JPEG", seed))
    data = load(tmp_path, 0)
    assert all(seems_whole(data._found.train, index) for index in range(30))
    monkeypatch.setattr("nas.data.decoding.picture", None)  # nothing is decoded
    assert data.check() == 60


# ---- what it leaves ----------------------------------------------------------------------------------------------------


def test_decoded_training_images_stay_for_the_training_and_test_images_do_not(tmp_path: Path) -> None:
    plain = Augmentation(crop="pad", flip=True)
    apart = load(write_folder(tmp_path), 0)  # streamed: nothing of its is in memory
    expected, held_out = take(apart, 4, augmentation=plain), list(apart.evaluation_batches("held_out", 3))
    data = load(tmp_path)
    data.check(plain)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert equal(take(data, 4, augmentation=plain), expected) and equal(list(data.evaluation_batches("held_out", 3)), held_out)
    assert (data.mean, data.std) == (apart.mean, apart.std)
    assert "No such file" in line(next, data.evaluation_batches("test", 4))


@BOTH
def test_pixels_of_test_images_change_nothing_of_a_training(tmp_path: Path, memory_limit: int) -> None:
    handed_out = []
    write_folder(tmp_path)
    for blank in (False, True):
        for path in tmp_path.glob("val/*/*.png") if blank else ():
            Image.new("RGB", (12, 12)).save(path)
        data = load(tmp_path, memory_limit)
        data.check(EVERYTHING)
        handed_out.append([*take(data, 4), *data.evaluation_batches("held_out", 4)])
    assert equal(*handed_out)


def test_without_a_training_nothing_stays(tmp_path: Path) -> None:
    data = load(write_folder(tmp_path))
    assert data.check() == 0
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    assert "No such file" in line(data.batches, "fit", 8, 0, Augmentation())


@BOTH
def test_the_look_ends_at_once_when_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_limit: int) -> None:
    data = load(write_folder(tmp_path, per_class=300), memory_limit)
    seen, begun, real = [], time.monotonic(), type(data._found.train).open
    monkeypatch.setattr(type(data._found.train), "open", lambda self, index: seen.append(index) or time.sleep(0.02) or real(self, index))

    def heed() -> None:
        if time.monotonic() - begun > 0.1:
            raise Stopped("the look")

    with pytest.raises(Stopped):
        data.check(heed=heed)
    assert 0 < len(seen) < 600 and time.monotonic() - begun < 1.5, "of 1200"


def test_a_long_look_is_remembered_for_the_same_files_and_a_short_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks, real = [], Data.check
    monkeypatch.setattr(Data, "check", lambda self, *given: looks.append(given) or real(self, *given))
    folder, run = write_folder(tmp_path / "images"), Run("long", tmp_path)

    def look() -> int:
        setting = settings.open_setting(Given(data=str(folder)), 4, 32)
        settings.look_at_images(setting, run, None, lambda: False)
        return len(looks)

    assert (look(), look()) == (1, 2)
    monkeypatch.setattr(settings, "LONG_LOOK", -1.0)
    assert (look(), look(), look()) == (3, 3, 3)
    assert capsys.readouterr().out == ""
    write_image(folder / "val" / "ant" / "new.png", 0)
    assert look() == 4


def test_what_was_not_decoded_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setting = settings.open_setting(Given(data=str(write_folder(tmp_path / "images"))), 4, 32)
    setting.__dict__["images"] = load(tmp_path / "images", 0)
    settings.look_at_images(setting, Run("some", tmp_path), None, lambda: False)
    (said,) = capsys.readouterr().out.splitlines()
    assert "40 images" in said
    settings.look_at_images(setting, Run("some", tmp_path), None)
    assert not capsys.readouterr().out, "once"
    setting.__dict__["images"] = load(tmp_path / "images", 0)
    with pytest.raises(Stopped):
        settings.look_at_images(setting, Run("some", tmp_path), None, lambda: True)


# ---- streamed sets, in which damage may come later ----------------------------------------------------------------------


def spoilt(folder: Path, layout: str) -> tuple[str, Path]:
    """A set with an image that only decoding finds broken, and the same set where in its place is the next one of its split, both of one class, and
    the sample for mean and deviation meets neither. The place of the first, and the folder of the second."""
    whole = load(write_set(folder / "set", layout), 0)
    images, fit, sample = whole._found.train, whole._indices["fit"].tolist(), whole._found.train.sample(3)
    begin = 0 if layout == "parquet" else 10  # where the second class begins, if classes lie one behind the other
    alike = [(i, j) for i, j in itertools.pairwise(fit) if i > begin and images.labels[i] == images.labels[j]]
    first, following = next(each for each in alike if not {*each} & {*sample})
    number = first - begin
    shutil.copytree(folder / "set", folder / "mended")
    copied = io.BytesIO()
    with images.open(following) as image:
        image.save(copied, "PNG")
    replace_image(folder / "mended", layout, "train", number, copied.getvalue())
    return replace_image(folder / "set", layout, "train", number, encoded("PNG")[:-300]), folder / "mended"


@pytest.mark.parametrize("layout", often(["folder", "parquet", "tar"], "folder".__eq__))
@pytest.mark.parametrize("crop, loaders", [("pad", 0), ("pad", 2), ("resized", 0), ("resized", 2)])
def test_for_a_broken_image_of_a_streamed_training_the_next_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], layout: str, crop: str, loaders: int
) -> None:
    """In every row and box, wherever one begins; it is named once."""
    monkeypatch.setattr("nas.data.batches.MEASURED", 3)
    place, mended = spoilt(tmp_path, layout)
    augmentation = EVERYTHING.model_copy(update={"crop": crop})
    expected = take(load(mended, 0, 0), 16, augmentation=augmentation, batch=2)  # two epochs
    assert not capsys.readouterr().err
    data = load(tmp_path / "set", 0, loaders)
    assert equal(take(data, 16, augmentation=augmentation, batch=2), expected)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{place}: broken image: got ") and said.endswith(" The next image stands for it (1 of at most 1 such).")
    assert equal(take(load(tmp_path / "set", 0, loaders), 11, start=5, augmentation=augmentation, batch=2), expected[5:])
    happened("an image that breaks while a training streams it", layout, "named and counted; the next one stands for it")


def test_processes_that_share_batches_take_the_same_image_for_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.data.batches.MEASURED", 3)
    _, mended = spoilt(tmp_path, "folder")
    for expected, *parts in zip(
        take(load(mended, 0), 4, batch=4),
        *(take(open_data(str(tmp_path / "set")).load(12, CPU, 0, 0, Part(number, 2)), 4, batch=4) for number in range(2)),
        strict=True,
    ):
        for number, (x, target) in enumerate(parts):
            rows = Part(number, 2).rows(4).places
            assert torch.equal(x, expected[0][rows]) and torch.equal(target, expected[1][rows])
    happened("an image that breaks while a training streams it", "two processes", "the same image stands for it as in one")


def test_more_broken_images_than_a_few_end_a_training_which_goes_on_with_the_files_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nas.data.batches.MEASURED", 3)
    folder = write_folder(tmp_path)
    whole, expected = open_data(str(folder)), take(load(folder, 0), 8, batch=2)
    paths = [Path(whole._found.train.place(i)) for i in load(folder)._indices["fit"] if i not in whole._found.train.sample(3)]
    contents = [path.read_bytes() for path in paths[:2]]
    for path, content in zip(paths, contents, strict=False):
        path.write_bytes(content[:150] + bytes(len(content) - 150))
    message = line(lambda: take(load(folder, 0), 8, batch=2))
    named = capsys.readouterr().err
    assert "too many broken images: got 2 of 20" in message and "accepted: 1." in message
    assert sorted(str(path) in named for path in paths[:2]) == [False, True] and all(str(path) in named + message for path in paths[:2])
    for path, content in zip(paths, contents, strict=False):
        path.write_bytes(content)
    again = open_data(str(folder))
    assert again.fingerprint == whole.fingerprint and equal(take(again.load(12, CPU, 0, 0), 8, batch=2), expected)
    happened("too many images that break", "folder", "one line; with the files as they were the training goes on")


@pytest.mark.parametrize("loaders", [0, 1])
def test_an_image_that_the_system_does_not_give_out_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaders: int
) -> None:
    """As without a disk, or files to open: all of them are whole, and the training is to be gone on with when they are there."""
    monkeypatch.setattr("nas.data.batches.MEASURED", 3)
    data = load(write_folder(tmp_path), 0, loaders)
    assert data.mean

    def failing(self: object, index: int) -> object:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(type(data._found.train), "open", failing)
    message = line(lambda: take(data, 8, batch=2))
    assert "got Too many open files" in message and message.endswith("Put it back: the same command goes on.")


@pytest.mark.parametrize("split", ["held_out", "test"])
@BOTH
def test_who_judges_goes_without_a_broken_image_and_counts_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str, memory_limit: int
) -> None:
    """It was whole when all were looked at, and a training of days stands before it."""
    data = load(write_folder(tmp_path), memory_limit)
    assert data.mean
    whole, index = list(data.evaluation_batches(split, 3)), data._indices[split][1]
    place = Path(data._images(split).place(index))
    place.write_bytes(encoded("PNG")[:-300])
    spoilt = load(tmp_path, memory_limit)
    spoilt.__dict__["_statistics"] = data.mean, data.std  # whoever trained had them
    for _ in range(2):
        found = list(spoilt.evaluation_batches(split, 3))
        images, labels = (torch.cat(each) for each in zip(*whole, strict=True))
        kept = [row for row in range(len(labels)) if row != 1]
        assert torch.equal(torch.cat([x for x, _ in found]), images[kept]) and torch.equal(torch.cat([y for _, y in found]), labels[kept])
        assert spoilt.size(split) == len(labels) - 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{place}: broken image: got ") and said.endswith(" It is left out (1 of at most 1 such).")
    happened("an image that breaks before it is judged on", split, "named and counted; it is left out")


# ---- folders -----------------------------------------------------------------------------------------------------------

LOOPS = {
    "the folder above": ("train/ant/loop", "..", "train"),
    "itself": ("train/ant/loop", ".", "train/ant"),
    "the set": ("train/ant/deeper/loop", "../../..", "."),
    "a folder linked twice": ("train/ant/twice", "../../../elsewhere", "train/ant/once"),
    "another class": ("train/bee/more", "../ant", "train/ant"),
    "a class that is above": ("train/loop", "..", "."),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_folder_that_links_reach_twice_is_refused(tmp_path: Path, loop: str) -> None:
    folder, (link, target, first) = write_folder(tmp_path / "set", per_class=2), LOOPS[loop]
    write_image(tmp_path / "elsewhere" / "x.png", 0)
    (folder / "train/ant/once").symlink_to(tmp_path / "elsewhere")
    (folder / link).parent.mkdir(exist_ok=True)
    (folder / link).symlink_to(target)
    if loop == "a class that is above":
        (folder / "val/loop").mkdir()
    message = line(open_data, str(folder))
    assert message.startswith(f"{folder / link}: a folder that is reached twice: got the same as {folder / first}; ")


def test_links_to_files_and_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    plain, linked, store = write_folder(tmp_path / "plain"), tmp_path / "linked", tmp_path / "store"
    shutil.copytree(plain, store)
    (linked / "train/ant").mkdir(parents=True)
    (linked / "val").symlink_to(store / "val")  # a split, a class, a folder in a class, and files
    (linked / "train/bee").symlink_to(store / "train/bee")
    for path in (store / "train/ant").iterdir():
        (linked / "train/ant" / path.name).symlink_to(path)
    one, other = (open_data(str(folder)).load(12, CPU) for folder in (plain, linked))
    assert equal(*(list(data.evaluation_batches(split, 20)) for data in (one, other) for split in ("train",)))
    assert one._found.train.labels.tolist() == other._found.train.labels.tolist()
    write_image(tmp_path / "more" / "1.png", 1)
    (linked / "train/ant/more").symlink_to(tmp_path / "more")
    assert load(linked).size("train") == 21 and load(linked).check() == 0


def test_a_folder_in_a_class_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, real = write_folder(tmp_path), os.scandir
    write_image(folder / "train/bee/deeper/x.png", 0)

    def guarded(path: object) -> object:
        if str(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", guarded)
    assert line(open_data, str(folder)).startswith(f"{folder}/train/bee/deeper: unreadable: got Permission denied")


def test_names_that_are_not_utf_8_are_read_where_no_record_needs_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set")
    odd = os.fsencode(folder) + b"/train/ant/caf\xe9.png"
    shutil.copy(folder / "train/ant/000.png", odd)
    data = load(folder)
    assert data.check() == 0 and data.size("train") == 21
    with open(odd, "wb") as file:
        file.write(b"text")
    assert "caf\udce9.png: broken image" in line(load(folder).check)
    os.unlink(odd)
    with tarfile.open(write_set(tmp_path / "packed", "tar") / "train.tar", "a") as archive:
        archive.add(folder / "train/ant/000.png", "./ant/caf\udce9.png")
    source = open_data(str(tmp_path / "packed"))
    assert len(source.fingerprint) == 12 and source.load(12, CPU).check() == 0
    for split in ("train", "val"):
        os.rename(os.fsencode(folder / split / "ant"), os.fsencode(folder / split) + b"/caf\xe9")
    assert "not UTF-8: got 'caf\\udce9'" in line(open_data, str(folder))
    os.rename(os.fsencode(folder), os.fsencode(tmp_path) + b"/caf\xe9")
    assert "not UTF-8" in line(open_data, os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))


# ---- tar and Parquet files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["tar", "parquet"])
def test_a_fifo_in_place_of_a_file_of_images_is_refused(tmp_path: Path, layout: str) -> None:
    path = write_set(tmp_path, layout) / f"train.{layout}"
    path.unlink()
    os.mkfifo(path)
    timer = threading.Timer(10, lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))
    timer.start()
    assert line(open_data, str(tmp_path)).startswith(f"{path}: unreadable: got a FIFO in place of a file")
    timer.cancel()


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE])
def test_an_image_in_a_tar_file_that_is_no_file_is_named(tmp_path: Path, kind: bytes) -> None:
    path = write_set(tmp_path, "tar") / "val.tar"
    for name, accepted in (("./bee/notes.txt", True), ("./bee/odd.PNG", False)):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "./bee/001.png"
        with tarfile.open(path, "a") as archive:
            archive.addfile(member)
        if accepted:
            assert load(tmp_path).check() == 0
        else:
            assert line(open_data, str(tmp_path)).startswith(f"{path}: {name}: no file")


def test_a_tar_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_set(tmp_path, "tar") / "val.tar"
    path.write_bytes(path.read_bytes()[:8300])
    assert line(lambda: load(tmp_path).check()).startswith(f"{path}: ")


# ---- one class ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["folder", "flat", "parquet", "tar", "torchvision"])
def test_a_set_of_one_class_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    if layout == "torchvision":
        images = SimpleNamespace(data=np.zeros((5, 8, 8), np.uint8), targets=[0] * 5, classes=["ant"])
        monkeypatch.setattr("torchvision.datasets.FashionMNIST", lambda *given, **named: images)
        message = line(open_data, "FashionMNIST", write_fashion_mnist(tmp_path))
    elif layout == "flat":
        (write_folder(tmp_path / "set") / "train" / "ant").rename(tmp_path / "ant")
        shutil.rmtree(tmp_path / "set")
        message = line(open_data, str(tmp_path))
    else:
        write_set(tmp_path, "folder" if layout != "parquet" else layout)
        for split in ("train", "val", "test"):
            if layout == "parquet" and split != "val":
                write_parquet(tmp_path / f"{split}.parquet", [0] * 9, ["ant"])
            elif layout != "parquet" and split != "test":
                shutil.rmtree(tmp_path / split / "bee")
                if layout == "tar":
                    with tarfile.open(tmp_path / f"{split}.tar", "w") as archive:
                        archive.add(tmp_path / split, arcname=".")
                    shutil.rmtree(tmp_path / split)
        message = line(open_data, str(tmp_path))
    assert "one class alone: got 'ant'" in message
    happened("a class missing", layout, "refused in one line")
