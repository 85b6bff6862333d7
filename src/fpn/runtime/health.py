"""What a report of trouble needs to say of a machine: versions, devices, threads, memory, folders, and what is wrong.

Whatever is broken is told as a fact. Nothing here fails, and of this library's own parts none is needed before it is
looked at: a torch that can't be imported is one of the things that are found.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from fpn.runtime.cores import usable_cores
from fpn.version import __version__

_GIB = 2**30
# Packages whose module has another name than they.
_MODULES = {"pillow": "PIL", "pyyaml": "yaml"}
# Begin to name what changes how the library or the packages below it work.
_VARIABLES = ("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_", "CUDA_", "PYTORCH_", "TORCH_", "HF_", "ACCELERATE_", "XDG_")
_SECRET = re.compile("TOKEN|KEY|SECRET|PASS")
_YES = {True: "yes", False: "no"}
# Instructions with many numbers at once, and the flags of which one means that a processor has them.
_INSTRUCTIONS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "AMX": {"amx_tile"},
}
# Extras of those who work on the library itself.
_NOT_FOR_USERS = {"dev"}
# Below this a folder is nearly full, and workers run out of shared memory; GiB.
_LITTLE = 0.5


@dataclass(frozen=True)
class Fact:
    """One thing that was found.

    Attributes:
        group: what it is about, such as "packages".
        name: of what was looked at, unique in its group.
        value: what it is, for people.
        trouble: what is wrong with it and what helps; None: nothing.
    """

    group: str
    name: str
    value: str
    trouble: str | None = None


def examine(folders: Mapping[str, Path]) -> list[Fact]:
    """All facts, those of a group one after the other.

    Args:
        folders: what has to be writable beside the caches of weights, by what it is for.
    """
    looks: Sequence[tuple[str, Callable[[], list[Fact]]]] = (
        ("program", _program),
        ("packages", _packages),
        ("extras", _extras),
        ("devices", _devices),
        ("threads", _threads),
        ("memory", _memory),
        ("folders", lambda: _folders(folders)),
        ("variables", _variables),
    )
    return [fact for group, look in looks for fact in _survive(group, look)]


def as_json(facts: Sequence[Fact]) -> dict[str, Any]:
    """Values by group and name, and all troubles in a list."""
    groups: dict[str, dict[str, str]] = {}
    for fact in facts:
        groups.setdefault(fact.group, {})[fact.name] = fact.value
    return {**groups, "troubles": [f"{fact.name}: {fact.trouble}" for fact in facts if fact.trouble]}


def _survive(group: str, look: Callable[[], list[Fact]]) -> list[Fact]:
    try:
        return look()
    except Exception as error:
        return [Fact(group, group, "can't be looked at", _told(error))]


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _program() -> list[Fact]:
    return [
        Fact("program", "fpn", f"{__version__}, in {_short(Path(__file__).parents[1])}"),
        Fact("program", "python", f"{platform.python_version()}, {_short(Path(sys.executable))}"),
        Fact("program", "system", f"{platform.platform()}, {platform.machine()}"),
    ]


def _packages() -> list[Fact]:
    try:
        needed = _requirements()
    except metadata.PackageNotFoundError:
        remedy = "fpn is not installed, so that what it needs is not known: pip install it, or uv sync"
        return [Fact("packages", "fpn", "not installed", remedy)]
    return [_package(name, least) for name, least, extra in needed if not extra]


def _package(name: str, least: str) -> Fact:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Fact("packages", name, "not installed", f"fpn needs it: pip install '{name}>={least}'")
    if _release(version) < _release(least):
        return Fact("packages", name, version, f"{version} is too old: pip install --upgrade '{name}>={least}'")
    try:
        import_module(_module(name))
    except Exception as error:
        return Fact("packages", name, f"{version}, can't be imported", f"can't be imported: {_told(error)}")
    return Fact("packages", name, version)


def _extras() -> list[Fact]:
    """What may be installed beside, each with all of its packages; that something is absent is no trouble."""
    packages: dict[str, list[tuple[str, str]]] = {}
    for name, least, extra in _requirements():
        if extra and extra not in _NOT_FOR_USERS:
            packages.setdefault(extra, []).append((name, least))
    return [Fact("extras", extra, _extra(extra, needed)) for extra, needed in packages.items()]


def _extra(extra: str, needed: Sequence[tuple[str, str]]) -> str:
    """What is there of its packages, and what is absent, of which it says the least version that it takes."""
    there, absent = [], []
    for name, least in needed:
        try:
            there.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            absent.append(f"{name} {least} or later")
    if not absent:
        return ", ".join(there)
    state = f"incomplete, {', '.join(there)} alone" if there else "not installed"
    return f"{state}; pip install 'fpn[{extra}]' brings {', '.join(absent)}"


def _requirements() -> list[tuple[str, str, str]]:
    """Name, least version and extra ("": always needed) of each package that fpn asks for."""
    found = []
    for line in metadata.requires("fpn") or ():
        name = re.match(r"[\w.-]+", line)
        least = re.search(r">=\s*([\w.]+)", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if name:
            found.append((name[0], least[1] if least else "0", extra[1] if extra else ""))
    return found


def _module(package: str) -> str:
    return _MODULES.get(package, package.replace("-", "_"))


def _release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, without zeros at their end: 2.10.0+cpu -> (2, 10)."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, re.sub(r"(\.0+)+$", "", numbers[0]).split("."))) if numbers else ()


def _devices() -> list[Fact]:
    import torch

    from fpn.runtime.capacity import find_capacity
    from fpn.runtime.device import has_fast_bf16, no_compiler

    cpu = torch.device("cpu")
    told = {
        "cpu": _processor(),
        "torch uses": torch.backends.cpu.get_cpu_capability(),
        **_instructions(_read(Path("/proc/cpuinfo"))),
        "bf16 in hardware": _YES[has_fast_bf16(cpu)],
        "for --compile": no_compiler(cpu) or "a C++ compiler",
    }
    facts = [Fact("devices", name, value) for name, value in told.items()]
    facts += [Fact("devices", f"cuda:{number}", _gpu(number)) for number in range(torch.cuda.device_count())]
    if torch.cuda.device_count() == 0 and shutil.which("nvidia-smi"):
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        facts.append(
            Fact("devices", "nvidia", "not usable", f"there is an NVIDIA driver, but this torch, {built}, finds no GPU")
        )
    return [*facts, Fact("devices", "default", str(find_capacity()))]


def _gpu(number: int) -> str:
    import torch

    about = torch.cuda.get_device_properties(number)
    free = torch.cuda.mem_get_info(number)[0] / _GIB
    able = f"compute capability {about.major}.{about.minor}, CUDA {torch.version.cuda}"
    return f"{about.name}, {free:.1f} of {about.total_memory / _GIB:.1f} GiB free, {able}"


def _instructions(cpuinfo: str) -> dict[str, str]:
    """Whether an x86 processor has what docs/words.md explains; nothing where its system does not list flags."""
    listed = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    flags = set(listed[1].split()) if listed else set()
    return {name: _YES[bool(flags & any_of)] for name, any_of in _INSTRUCTIONS.items()} if flags else {}


def _processor() -> str:
    names = re.findall(r"model name\s*:\s*(.+)", _read(Path("/proc/cpuinfo")))
    return str(names[0]) if names else platform.processor() or platform.machine()


def _threads() -> list[Fact]:
    import torch

    usable = usable_cores()
    threads = torch.get_num_threads()
    trouble = f"more than the {usable} cores of this process: they wait for one another" if threads > usable else None
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return [
        Fact("threads", "cores", f"{usable} usable of {os.cpu_count()}{load}"),
        Fact("threads", "torch", str(threads), trouble),
    ]


def _memory() -> list[Fact]:
    found = dict(re.findall(r"(\w+):\s+(\d+) kB", _read(Path("/proc/meminfo"))))
    facts = []
    if {"MemTotal", "MemAvailable"} <= found.keys():
        free, total = (int(found[name]) * 1024 / _GIB for name in ("MemAvailable", "MemTotal"))
        facts.append(Fact("memory", "machine", f"{free:.1f} of {total:.1f} GiB free"))
    limit = _read(Path("/sys/fs/cgroup/memory.max")).strip()
    if limit.isdigit():
        facts.append(Fact("memory", "container", f"may use {int(limit) / _GIB:.1f} GiB"))
    shared = Path("/dev/shm")
    if shared.is_dir():
        free = shutil.disk_usage(shared).free / _GIB
        little = "workers hand images over through it: docker run --shm-size 2g, or fpn train --workers 0"
        facts.append(Fact("memory", "shared", f"{free:.2f} GiB free", little if free < _LITTLE else None))
    return facts


def _folders(folders: Mapping[str, Path]) -> list[Fact]:
    found = [_folder(name, path) for name, path in {"temporary": Path(tempfile.gettempdir()), **folders}.items()]
    return [*found, *_survive("folders", _weights)]


def _weights() -> list[Fact]:
    """Where downloaded weights are kept: timm's backbones, and torchvision's detectors."""
    import torch
    from huggingface_hub import constants

    caches = {"timm's weights": constants.HF_HUB_CACHE, "torch's weights": torch.hub.get_dir()}
    return [_folder(name, Path(path)) for name, path in caches.items()]


def _folder(name: str, path: Path) -> Fact:
    """Whether files can be written there, tried in the nearest folder that exists."""
    there = next((each for each in (path, *path.absolute().parents) if each.is_dir()), path)
    absent = "" if there == path else ", not made yet"
    try:
        free = shutil.disk_usage(there).free / _GIB
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Fact(
            "folders", name, f"{_short(path)}, not writable", f"{_short(there)} can't be written: {error.strerror}"
        )
    full = f"only {free:.2f} GiB are free in {_short(there)}" if free < _LITTLE else None
    return Fact("folders", name, f"{_short(path)}, writable, {free:.1f} GiB free{absent}", full)


def _variables() -> list[Fact]:
    """Those that change something; what may be a secret is not shown."""
    named = {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}
    return [Fact("variables", name, "(set)" if _SECRET.search(name) else value) for name, value in named.items()]


def _short(path: Path) -> str:
    """Without the name of the user, as far as it is in a home folder's."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
