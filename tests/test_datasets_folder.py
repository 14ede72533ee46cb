"""Folders of images: scanning, decoding on CPU and GPU, and loader processes."""

from __future__ import annotations

import io
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets, transforms

from mpisweep.processes.kernel import adopt_orphans, process_start
from mpisweep.workloads import leftovers
from mpisweep.workloads.datasets import DataError
from mpisweep.workloads.folder import device, loading, scan
from mpisweep.workloads.folder.batches import (
    Target,
    every_image_once,
    folder_batches,
    one_ahead,
    start_validation,
)
from mpisweep.workloads.folder.device import is_decoding
from mpisweep.workloads.folder.jpeg import shape_for_device
from mpisweep.workloads.folder.scan import find_images

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an image with edges and colours."""
    random = np.random.default_rng(seed)
    rough = random.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotated by 90 degrees
    return encoded(photo(60, 40, 3), exif=exif)


#: Name -> content of a file, and whether a GPU may decode it.
KINDS: dict[str, tuple[bytes, bool]] = {
    "plain.jpg": (encoded(photo(61, 45), quality=95), True),
    "same.jpg": (encoded(photo(61, 45, 1), quality=95), True),
    "upright.JPEG": (encoded(photo(40, 90, 2)), True),
    "turned.jpg": (turned(), True),
    "progressive.jpg": (encoded(photo(70, 50, 4), progressive=True), True),
    "full colour.jpg": (encoded(photo(70, 50, 5), subsampling=0), True),
    "grey.jpg": (encoded(photo(50, 50, 6).convert("L")), True),
    "right size.jpg": (encoded(photo(32, 32, 7)), True),
    "cmyk.jpg": (encoded(photo(50, 40, 8).convert("CMYK")), False),
    "rgb.jpg": (encoded(photo(50, 40, 9), keep_rgb=True), False),
    "rgba.png": (encoded(photo(50, 40, 10).convert("RGBA"), "PNG"), False),
    "palette.png": (encoded(photo(50, 40, 11).convert("P"), "PNG"), False),
    "grey.png": (encoded(photo(50, 40, 12).convert("L"), "PNG"), False),
    "sixteen bits.bmp": (encoded(photo(50, 40, 13), "BMP"), False),
    "large.jpg": (encoded(photo(32 * 64 + 1, 8, 14)), False),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two classes with a file of each kind."""
    for number, (name, (data, _)) in enumerate(KINDS.items()):
        at = tmp_path / "images" / f"class {number % 2}"
        at.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(data)
    return tmp_path / "images"


def every(root: Path, target: Target) -> tuple[torch.Tensor, list[int]]:
    """Return all images of a folder in order, read in batches of 4."""
    files = find_images(str(root))
    images, labels = zip(*every_image_once(files, 4, target, slice(None)), strict=True)
    return torch.cat(images), torch.cat(labels).tolist()


def by_torchvision(root: Path) -> datasets.ImageFolder:
    """Load a folder as in torchvision's documentation."""
    return datasets.ImageFolder(
        str(root),
        transforms.Compose([
            transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)
        ]),
    )  # fmt: skip


# ------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("loaders", [0, 2])
def test_pixels_decoded_on_the_cpu_equal_those_of_torchvision(folder: Path, loaders: int):
    expected = by_torchvision(folder)
    images, labels = every(folder, Target(32, CPU, loaders=loaders))
    assert labels == expected.targets
    assert torch.equal(images, torch.stack([image for image, _ in expected]))


@pytest.mark.parametrize("loaders", [0, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_resized_on_the_device_differ_from_the_cpu_by_up_to_one_level(
    folder: Path, loaders: int, layout: torch.memory_format
):
    expected, labels = every(folder, Target(32, CPU))
    images, same = every(folder, Target(32, CPU, layout, loaders, on_device=True))
    assert same == labels
    assert images.is_contiguous(memory_format=layout)
    levels = (images - expected).abs() * torch.tensor(STD)[:, None, None] * 255
    # Pillow rounds after each of its two passes; the device does not round.
    assert levels.max() < 1.01
    differ = levels.amax((1, 2, 3)) > 0.01
    names = [Path(find_images(str(folder)).path(row)).name for row in range(len(labels))]
    is_resized = [KINDS[name][1] and name != "right size.jpg" for name in names]
    assert differ.tolist() == is_resized, "the others are those of the CPU"


def test_only_jpegs_that_a_gpu_decodes_alike_stay_encoded(folder: Path):
    files = find_images(str(folder))
    reader = loading.Loaders(files, 0)
    [part] = reader.parts([list(range(len(files)))], 32, keep_encoded=True)
    names = [Path(files.path(row)).name for row in part.rows]
    assert dict(zip(names, [length > 0 for length in part.lengths], strict=True)) == {
        name: is_kept for name, (_, is_kept) in KINDS.items()
    }
    assert len(part.resized) == part.lengths.count(0)


@pytest.mark.parametrize("name", [name for name, (_, is_kept) in KINDS.items() if name != "large.jpg"])
def test_the_header_of_a_jpeg_gives_its_shape(name: str):
    data, is_for_device = KINDS[name]
    with Image.open(io.BytesIO(data)) as image:
        assert shape_for_device(data) == ((image.height, image.width) if is_for_device else None)


def test_a_truncated_or_corrupt_jpeg_goes_to_the_cpu_or_has_a_shape():
    data = KINDS["plain.jpg"][0]
    assert shape_for_device(data + b"\0\0") == (45, 61), "padding is allowed"
    for length in range(len(data)):
        assert shape_for_device(data[:length]) is None
    random = np.random.default_rng(1)
    for _ in range(2000):
        spoiled = bytearray(data)
        spoiled[random.integers(len(data))] = random.integers(256)
        assert shape_for_device(bytes(spoiled)) is None or len(shape_for_device(bytes(spoiled)) or ()) == 2


def test_an_image_that_the_device_cannot_decode_is_decoded_on_the_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """nvJPEG fails for a whole call and does not report which image failed."""
    expected, _ = every(folder, Target(32, CPU))
    on_device, _ = every(folder, Target(32, CPU, on_device=True))
    refused = KINDS["same.jpg"][0]
    real, calls = device.decode_on_device, []

    def decode(images, where):
        calls.append(len(images))
        if any(image.numpy().tobytes() == refused for image in images):
            raise RuntimeError("nvjpegDecode failed: 5")
        return real(images, where)

    monkeypatch.setattr(device, "decode_on_device", decode)
    images, _ = every(folder, Target(32, CPU, on_device=True))
    files = find_images(str(folder))
    [row] = [row for row in range(len(files)) if files.path(row).endswith("same.jpg")]
    assert torch.equal(images[row], expected[row])
    assert not torch.equal(on_device[row], expected[row])
    others = [other for other in range(len(files)) if other != row]
    assert torch.equal(images[others], on_device[others])
    assert max(calls) > 1, "usually many at once"


def test_a_device_failure_is_not_taken_for_a_damaged_image(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def decode(images, where):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device, "decode_on_device", decode)
    with pytest.raises(torch.OutOfMemoryError):
        every(folder, Target(32, CPU, on_device=True))


def test_a_gpu_decodes_if_it_can_and_is_asked_to():
    cuda = torch.device("cuda")
    assert not is_decoding("cpu", cuda)
    assert not is_decoding("auto", CPU)
    with pytest.raises(ValueError, match="decode = 'gpu' needs a CUDA device, and this trial runs on cpu"):
        is_decoding("gpu", CPU)
    if torch.cuda.is_available():
        return
    with pytest.raises(ValueError, match="decode = 'gpu' needs nvJPEG, and this torchvision cannot use it: "):
        is_decoding("gpu", cuda)
    with pytest.warns(UserWarning, match="JPEGs are decoded on the CPU: "):
        assert not is_decoding("auto", cuda)


# ------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("loaders", [0, 1])
@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "cannot be decoded: its format is unknown, or it is damaged"),
        (b"no image", "cannot be decoded: its format is unknown, or it is damaged"),
        (KINDS["plain.jpg"][0][:-500], "cannot be decoded: image file is truncated"),
        (KINDS["rgba.png"][0][:300], "cannot be decoded: "),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_damaged_image_is_named_when_its_batch_comes(
    folder: Path, loaders: int, on_device: bool, data: bytes | None, problem: str
):
    files = find_images(str(folder))
    path = Path(files.path(5))
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    batches = every_image_once(files, 4, Target(32, CPU, loaders=loaders, on_device=on_device), slice(None))
    next(batches)
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value).startswith(f"image {path} {problem}")
    assert "\n" not in str(caught.value)
    # The loaders continue to work.
    assert len(next(every_image_once(files, 4, Target(32, CPU, loaders=loaders), slice(None)))[1]) == 4


# ------------------------------------------------------------------------------------- scanning


def test_files_and_labels_are_those_of_torchvision(tmp_path: Path):
    image = KINDS["grey.png"][0]
    for name in ("b/2.png", "b/10.JPG", "b/sub/1.jpeg", "a/x.Webp", "a/sub b/deep/ü.png", "a/sub/y.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(image)
    for name in ("a/notes.txt", "README.png", "b/sub/.DS_Store"):
        (tmp_path / name).write_bytes(b"")
    elsewhere = tmp_path / "b" / "link"
    elsewhere.symlink_to(tmp_path / "a" / "sub")
    expected = datasets.ImageFolder(str(tmp_path))
    found = find_images(str(tmp_path))
    assert found.classes == tuple(expected.classes)
    rows = range(len(found))
    assert [(os.path.normpath(found.path(row)), found.label(row)) for row in rows] == expected.samples
    assert len(rows) == 7


def test_a_folder_is_scanned_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    walked: list[object] = []
    real = os.walk
    monkeypatch.setattr(scan.os, "walk", lambda top, **options: walked.append(top) or real(top, **options))
    for _ in range(3):
        next(folder_batches(find_images(str(folder)), 4, 1, Target(32, CPU)))
        assert find_images(str(folder), "val_root") is find_images(str(folder))
    assert len(walked) == 2, "one for each class"


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ([], "has no folders; expected one per class, with its images"),
        (["a/x.png", "b/x.txt", "c/"], "no images in b, c; expected files that end in .jpg, .jpeg, .png"),
        ([f"{n}/" for n in range(9)], "no images in 0, 1, 2 and 6 more; expected"),
    ],
)
def test_a_folder_without_classes_or_images_is_refused(tmp_path: Path, made: list[str], problem: str):
    for name in made:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match=re.escape(f"val_root = {str(tmp_path)!r}: {problem}")):
            find_images(str(tmp_path), "val_root")


def test_many_files_take_little_memory(tmp_path: Path):
    found = scan.ImageFiles("/data", ("a",), ((0, f"n01440764/n01440764_{n}.JPEG") for n in range(10_000)))
    assert found.path(9_999) == "/data/n01440764/n01440764_9999.JPEG"
    held = sum(len(memoryview(part).cast("B")) for part in (found._paths, found._ends, found._labels))
    assert held < 10_000 * 50


# ------------------------------------------------------------------------------------- order


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """Write images whose grey level encodes their number."""
    (tmp_path / "only").mkdir()
    for number in range(40):
        Image.new("L", (8, 8), number * 5).save(tmp_path / "only" / f"{number:02}.png")
    return tmp_path


def numbers(images: torch.Tensor) -> list[int]:
    grey = images[:, 0, 0, 0] * STD[0] + MEAN[0]
    return [round(float(value) * 255 / 5) for value in grey]


def batches(root: Path, count: int, loaders: int = 0, **options: object) -> list[list[int]]:
    found = folder_batches(find_images(str(root)), 20, 7, Target(8, CPU, loaders=loaders), **options)
    return [numbers(images) for images, _ in itertools.islice(found, count)]


def test_batches_do_not_depend_on_loaders_and_resume_at_a_given_step(shades: Path):
    whole = batches(shades, 6)
    assert sorted(whole[0] + whole[1]) == list(range(40))
    assert batches(shades, 6, 1) == batches(shades, 6, 2) == whole
    assert batches(shades, 2, 2, first=4) == whole[4:]


def test_the_pieces_of_all_ranks_make_up_the_batch(shades: Path):
    whole = batches(shades, 3)
    pieces = [batches(shades, 3, 2, piece=slice(first, first + 10)) for first in (0, 10)]
    assert [left + right for left, right in zip(*pieces, strict=True)] == whole


# ------------------------------------------------------------------------------------- processes


def loader_pids() -> set[int | None]:
    return {process.pid for process in multiprocessing.active_children()}


def test_the_next_trial_reuses_loaders_and_unused_ones_end(folder: Path, shades: Path):
    files = find_images(str(folder))
    next(folder_batches(files, 4, 1, Target(32, CPU, loaders=2)))
    first = loader_pids()
    assert len(first) == 2
    # Another batch size, image size and decoder.
    next(folder_batches(files, 8, 2, Target(16, CPU, loaders=2, on_device=True)))
    assert loader_pids() == first
    next(folder_batches(find_images(str(shades)), 4, 1, Target(32, CPU, loaders=2)))
    second = loader_pids()
    assert len(second - first) == 2
    start_validation(files, Target(32, CPU, loaders=1))
    assert len(loader_pids() - second) == 1
    assert len(list(every_image_once(files, 4, Target(32, CPU, loaders=1), slice(None)))) == 4


def test_loaders_are_not_ended_with_the_leftovers_of_a_trial(folder: Path):
    adopt_orphans()
    next(folder_batches(find_images(str(folder)), 4, 1, Target(32, CPU, loaders=1)))
    kept = loader_pids()
    left = subprocess.Popen(["sleep", "600"])
    assert not leftovers.end_leftovers()
    assert process_start(left.pid) == -1
    left.wait()
    assert loader_pids() == kept
    assert all(process_start(pid) > 0 for pid in kept if pid)
    loading.drop_loaders()
    assert not leftovers._kept


def test_a_loader_skips_the_requests_of_an_ended_trial(tmp_path: Path):
    """A loader that continues to read for an ended trial would delay the next one."""
    (tmp_path / "only").mkdir()
    for number in range(64):
        os.mkfifo(tmp_path / "only" / f"{number:02}.png")
    files = find_images(str(tmp_path))
    loaders = loading.loaders_for("training", files, 1)
    parts = loaders.parts([list(range(64))], 8, keep_encoded=False)
    waiting = threading.Thread(target=lambda: list(parts), daemon=True)
    waiting.start()
    with Path(files.path(0)).open("wb") as fifo:  # waits for the loader
        loaders.end_turn()
        fifo.write(KINDS["grey.png"][0])
    waiting.join(10)
    if waiting.is_alive():
        kill_a_loader()
        pytest.fail("the loader waits for the next image")


def kill_a_loader() -> int:
    # As in every trial of a process but the first, in which torch's handler raises at any point.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = min(pid for pid in loader_pids() if pid)
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_loader_that_dies_fails_its_trial_and_not_the_next(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    files, target = find_images(str(folder)), Target(32, CPU, loaders=1)
    found = folder_batches(files, 4, 1, target)
    next(found)
    kill_a_loader()
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(itertools.islice(found, 100))
    again = folder_batches(files, 4, 1, target)
    assert len(next(again)[1]) == 4


def test_loaders_that_were_ended_between_two_trials_are_replaced(folder: Path):
    files, target = find_images(str(folder)), Target(32, CPU, loaders=2)
    next(folder_batches(files, 4, 1, target))
    pid = kill_a_loader()
    deadline = time.monotonic() + 10
    while pid in loader_pids():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(next(folder_batches(files, 4, 1, target))[1]) == 4


def test_loaders_do_not_advance_the_random_state_of_the_model(folder: Path):
    before = torch.get_rng_state()
    next(folder_batches(find_images(str(folder)), 4, 1, Target(32, CPU, loaders=1)))
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------------------- one ahead


def counted(asked: list[int], threads: set[str]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for number in itertools.count():
        asked.append(number)
        threads.add(threading.current_thread().name)
        if number == 5:
            raise DataError("image 5 cannot be read")
        yield torch.tensor(number), torch.tensor(-number)


def test_batches_are_prepared_one_ahead_but_not_while_the_step_may_be_captured():
    asked: list[int] = []
    threads: set[str] = set()
    ahead = one_ahead(counted(asked, threads), CPU, lambda: None)
    assert int(next(ahead)[0]) == 0
    time.sleep(0.05)
    assert asked == [0], "no other thread is at work after the first batch"
    assert threads == {threading.current_thread().name}
    assert [tuple(map(int, next(ahead))) for _ in range(2)] == [(1, -1), (2, -2)]
    deadline = time.monotonic() + 10
    while asked != [0, 1, 2, 3]:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert [int(next(ahead)[0]) for _ in range(2)] == [3, 4]
    with pytest.raises(DataError, match="image 5"):
        next(ahead)


def test_a_trial_that_ends_does_not_wait_for_the_batch_that_is_prepared():
    ended = threading.Event()

    def slow() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for number in range(3):
            if number == 2:
                assert ended.wait(10), "it is told to end"
                return
            yield torch.tensor(number), torch.tensor(number)

    ahead = one_ahead(slow(), CPU, ended.set)
    next(ahead)
    next(ahead)
    ahead.close()
    assert threading.active_count() == 1 or all(
        not thread.name.startswith("next-batch") for thread in threading.enumerate()
    )
