"""Packing all imports of trial processes into one file: ``mpisweep run --stage-env``.

Importing torch opens some 2,700 files and stats some 30,000 more, on each rank.  A file system that serves
hundreds of ranks is slow at that, and all its users notice.  So the code of all modules that the workload
needs is written to one file, once; a rank's fork server opens that file and executes the code in it.

Modules keep their names, paths and loaders, so that code that looks for files beside its own finds them.
Only the module's location and its code come from the pack.  Libraries (``.so``) are few and are mapped from
their own files: each node reads them once, like the pack, however many ranks it has.  A module that is not in
the pack is imported as usual.

A pack contains only installed modules (the standard library, site-packages); a user's own modules are
imported in trial processes and not here.  A pack is valid as long as its source folders are unchanged;
installing or removing a package changes them.  The launcher also checks every single file.

::

    8 bytes   magic
    8 bytes   length of the index, little-endian
    4 bytes   CRC-32 of everything after this number
    index     JSON, see _Index
    code      marshalled code objects, end to end
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import marshal
import mmap
import os
import site
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from mpisweep.dataclass import asdict, dataclass

__all__ = ["PackError", "import_modules", "imported_from", "pack_file", "prepare_pack", "write_pack"]

_HEADER = struct.Struct("<8sQI")
_MAGIC = b"mSpack1\n"
#: The program that writes a pack; it uses its parent's module path.
_MAKE = """
import json, sys
from pathlib import Path
sys.path[:] = json.loads(sys.argv[1])
from mpisweep.processes.staging import write_pack
write_pack(Path(sys.argv[2]), sys.argv[3:])
"""


class PackError(Exception):
    """A pack cannot be used or made; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class _Module:
    """One module: its source, and its code's place in the pack; a library has no code there."""

    origin: str
    #: Search path of its submodules; None if it is not a package.
    search: list[str] | None
    offset: int
    length: int
    modified_ns: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Index:
    """The contents of a pack, and the environment that it was made from."""

    python: str
    path: list[str]
    #: Folder -> its mtime in ns.
    folders: dict[str, int]
    modules: dict[str, _Module]
    #: Modules that were searched and not found, so that no rank searches again.
    absent: list[str]


def pack_file(modules: Sequence[str]) -> Path:
    """The path of these modules' pack, in the user's cache, which nodes share like the home."""
    # Without a home folder, as in some containers, "~" remains.
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    made_of = json.dumps([sys.version, sys.prefix, sys.path, list(modules)])
    name = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return Path(cache) / "mpisweep" / f"imports-{name}.pack"


# ------------------------------------------------------------------------------------- making


def prepare_pack(modules: Sequence[str]) -> Path:
    """Return the pack of these modules; make it if it is missing or out of date.

    A separate process imports them, so that this one stays small.

    Raises:
        PackError: when it cannot be made.
    """
    path = pack_file(modules)
    if not path.is_absolute():
        raise PackError(
            "cannot pack the imports of trials: there is no home folder for the pack; set XDG_CACHE_HOME to "
            "a folder that all nodes share"
        )
    with contextlib.suppress(PackError):
        with _Pack.open(path) as pack:
            pack.verify_unchanged()
            return path
    command = [sys.executable, "-P", "-c", _MAKE, json.dumps(sys.path), os.fspath(path), *modules]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        last = made.stderr.strip().rpartition("\n")[2] or f"exit code {made.returncode}"
        raise PackError(f"cannot pack the imports of trials into {path} ({last})")
    return path


def write_pack(path: Path, modules: Sequence[str]) -> None:
    """Import these modules here, and pack every module that this has imported.

    Raises:
        OSError: when the file cannot be written.
        ImportError: when a module cannot be imported.
    """
    absent = _Absent()
    sys.meta_path.append(absent)
    try:
        for module in modules:
            importlib.import_module(module)
    finally:
        sys.meta_path.remove(absent)
    packed: dict[str, _Module] = {}
    code: list[bytes] = []
    at = 0
    for name, imported in sorted(sys.modules.items()):
        found = _code_of(name, imported)
        if found is None:
            continue
        spec, body = found
        assert spec.origin is not None
        state = Path(spec.origin).stat()
        search = spec.submodule_search_locations
        packed[name] = _Module(
            spec.origin,
            None if search is None else list(search),
            at,
            len(body),
            state.st_mtime_ns,
            state.st_size,
        )
        code.append(body)
        at += len(body)
    missing = [name for name in absent.names if name not in sys.modules]
    index = _Index(sys.version, list(sys.path), _folders(), packed, missing)
    text = json.dumps(asdict(index)).encode()
    rest = text + b"".join(code)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as out:
        try:
            out.write(_HEADER.pack(_MAGIC, len(text), zlib.crc32(rest)) + rest)
            out.flush()
            os.fsync(out.fileno())
            os.replace(out.name, path)
        except BaseException:
            Path(out.name).unlink(missing_ok=True)
            raise


class _Absent(MetaPathFinder):
    """The last finder: records every module that no other finder has found."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        self.names[name] = None


def _code_of(name: str, module: ModuleType) -> tuple[ModuleSpec, bytes] | None:
    """An installed module and its code; None if it must be imported as usual."""
    spec = getattr(module, "__spec__", None)
    if (
        not isinstance(spec, ModuleSpec)
        or spec.name != name
        or not spec.origin
        or not _is_installed(spec.origin)
    ):
        return None
    if type(spec.loader) is SourceFileLoader:
        code = spec.loader.get_code(name)
        return None if code is None else (spec, marshal.dumps(code))
    if type(spec.loader) is ExtensionFileLoader:
        return spec, b""
    return None


def _is_installed(origin: str) -> bool:
    return origin.startswith(tuple(f"{folder}{os.sep}" for folder in _installed_folders()))


def _installed_folders() -> list[str]:
    found = {os.path.dirname(os.__file__), *site.getsitepackages()}  # noqa: PTH120 text, as in sys.path
    if site.ENABLE_USER_SITE:
        found.add(site.getusersitepackages())
    return sorted(folder for folder in found if Path(folder).is_dir())


def _folders() -> dict[str, int]:
    return {folder: Path(folder).stat().st_mtime_ns for folder in _installed_folders()}


# ------------------------------------------------------------------------------------- importing


def import_modules(modules: Sequence[str], pack: str = "") -> None:
    """Import modules here, from a pack if there is one.

    Standard error says so if the pack cannot be used.
    """
    with contextlib.ExitStack() as staged:
        if pack:
            try:
                staged.enter_context(imported_from(Path(pack)))
            except PackError as error:
                print(f"mpisweep: {error}; importing the installed modules", file=sys.stderr)
        for module in modules:
            # If this import fails, it fails again where the module is used, and is reported there.
            with contextlib.suppress(Exception):
                importlib.import_module(module)


@contextlib.contextmanager
def imported_from(path: Path) -> Iterator[None]:
    """While inside, import modules from the pack if it has them.

    Raises:
        PackError: when there is no pack at this path, or it is from another environment.
    """
    with _Pack.open(path) as pack:
        finder = _Finder(pack)
        # It replaces the finder that searches folders, and calls it for modules that are not in the pack.
        at = sys.meta_path.index(PathFinder)
        sys.meta_path[at] = finder
        try:
            yield
        finally:
            sys.meta_path[sys.meta_path.index(finder)] = PathFinder


class _Pack:
    """A pack that is open for reading."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._data = data
        if data[: _HEADER.size] == b"" or len(data) < _HEADER.size:
            raise PackError(f"{path}: is not a pack of imports")
        magic, length, checksum = _HEADER.unpack_from(data)
        begins = _HEADER.size + length
        with memoryview(data) as view:
            if magic != _MAGIC or zlib.crc32(view[_HEADER.size :]) != checksum:
                raise PackError(f"{path}: is not a pack of imports")
        found = json.loads(data[_HEADER.size : begins])
        modules = {name: _Module(**module) for name, module in found.pop("modules").items()}
        self.index = _Index(modules=modules, **found)
        self._begins = begins
        if self.index.python != sys.version or self.index.path != sys.path:
            raise PackError(f"{path}: was made for another Python or another module path")
        if self.index.folders != _folders():
            raise PackError(f"{path}: packages were installed or removed since it was made")

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[_Pack]:
        """Open the pack at this path.

        Raises:
            PackError: when it cannot be used.
        """
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_uid not in (os.getuid(), 0):
                    raise PackError(f"{path}: belongs to another user")
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise PackError(f"{path}: cannot be read ({error})") from error
        with data:
            yield cls(path, data)

    def code(self, module: _Module) -> CodeType:
        at = self._begins + module.offset
        code: CodeType = marshal.loads(self._data[at : at + module.length])  # noqa: S302 our own file, see open()
        return code

    def verify_unchanged(self) -> None:
        for module in self.index.modules.values():
            try:
                state = Path(module.origin).stat()
            except OSError as error:
                raise PackError(f"{module.origin} is gone") from error
            if (state.st_mtime_ns, state.st_size) != (module.modified_ns, module.bytes):
                raise PackError(f"{module.origin} has changed")


class _Finder(MetaPathFinder):
    """Finds the modules of a pack."""

    def __init__(self, pack: _Pack) -> None:
        self._pack = pack
        self._absent = frozenset(pack.index.absent)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        module = self._pack.index.modules.get(name)
        if module is None:
            return None if name in self._absent else PathFinder.find_spec(name, path, target)
        if module.length == 0:
            loader: SourceFileLoader | ExtensionFileLoader = ExtensionFileLoader(name, module.origin)
        else:
            loader = _Loader(name, module.origin, self._pack.code(module))
        return importlib.util.spec_from_file_location(
            name, module.origin, loader=loader, submodule_search_locations=module.search
        )


class _Loader(SourceFileLoader):
    """Loads a module from packed code; all other requests use the source's own path."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code: CodeType | None = code

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the packed code the first time; later calls read the source as usual."""
        code, self._code = self._code, None
        return code if code is not None else super().get_code(fullname)
