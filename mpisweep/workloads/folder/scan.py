"""The image files under a folder, one folder per class.

The rules are those of torchvision's ImageFolder: classes are the folders in order of their names, a class
has all images below its folder, and links to folders are followed.  ImageFolder keeps two Python objects per
file, and every loader process gets a copy of them as it touches their reference counts; here all paths are
one block of bytes.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from mpisweep.workloads.datasets import DataError, check_root

__all__ = ["ImageFiles", "find_images"]


class ImageFiles:
    """Paths and labels of the images under a folder.

    Args:
        root: the folder.
        classes: names of the class folders; a label is an index into them.
        found: label and path below `root` of each image.
    """

    def __init__(self, root: str, classes: tuple[str, ...], found: Iterator[tuple[int, str]]) -> None:
        self.root = root
        self.classes = classes
        self._labels = array("i")
        self._ends = array("q", [0])
        paths = bytearray()
        for label, path in found:
            paths += os.fsencode(path)
            self._labels.append(label)
            self._ends.append(len(paths))
        self._paths = bytes(paths)
        present = set(self._labels)
        #: Classes whose folders hold no images.
        self.without_images = [name for label, name in enumerate(classes) if label not in present]

    def __len__(self) -> int:
        return len(self._labels)

    def path(self, row: int) -> str:
        """Path of an image."""
        return f"{self.root}/{os.fsdecode(self._paths[self._ends[row] : self._ends[row + 1]])}"

    def label(self, row: int) -> int:
        """Label of an image."""
        return self._labels[row]


def find_images(root: str, option: str = "data_root") -> ImageFiles:
    """Find the images under a folder, once per process: files that are added later are not seen.

    A new trial process, as after a crash or with ``fresh_process``, scans again.

    Args:
        root: the folder that contains the class folders.
        option: that names the folder, for messages.

    Raises:
        DataError: when there are no class folders, or one has no images.
    """
    check_root("imagefolder", root, option)
    try:
        files = _scan(root)
    except OSError as error:
        raise DataError(f"{option} = {root!r}: {error.filename} cannot be read: {error.strerror}") from error
    if not files.classes:
        raise DataError(f"{option} = {root!r}: has no folders; expected one per class, with its images")
    if files.without_images:
        some = ", ".join(files.without_images[:3])
        more = f" and {len(files.without_images) - 3} more" if len(files.without_images) > 3 else ""
        raise DataError(
            f"{option} = {root!r}: no images in {some}{more}; expected files that end in "
            f"{', '.join(IMG_EXTENSIONS)}"
        )
    return files


@cache
def _scan(root: str) -> ImageFiles:
    with os.scandir(root) as entries:
        classes = tuple(sorted(entry.name for entry in entries if entry.is_dir()))
    return ImageFiles(root, classes, _each_image(root, classes))


def _each_image(root: str, classes: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    for label, name in enumerate(classes):
        for folder, _, files in sorted(os.walk(Path(root, name), followlinks=True, onerror=_fail)):
            below = os.path.relpath(folder, root)
            for file in sorted(files):
                if file.lower().endswith(IMG_EXTENSIONS):
                    yield label, f"{below}/{file}"


def _fail(error: OSError) -> None:
    # os.walk leaves out folders that it cannot list, and so a training would miss a class.
    raise error
