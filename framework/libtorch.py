#!/usr/bin/env python3
"""Lays out libtorch for Limbeck: `.libtorch/` in the checkout, which `.cargo/config.toml` names to cargo.

Usage: libtorch.py [--cuda]     (`make libtorch`, `make libtorch CUDA=1`)

Where it comes from, first match:
  1. $LIBTORCH, the folder of a libtorch or of an installed torch package
  2. the PyTorch of this Python
  3. PyPI's wheels, fetched with pip and unpacked (nothing is installed)
LIMBECK_LIBTORCH=download goes straight to 3.

The result is a view for linking: symlinks to libtorch_cpu and what it needs to load, and no libtorch_cuda, so that the
binaries start on hosts without CUDA. They load libtorch_cuda themselves where it lies beside the real libtorch_cpu.

  build-version        the version, which torch-sys checks
  include, lib/        what is compiled and linked against
  origin.json          where it came from, so that a second call knows that nothing is to be done
  store/               the unpacked wheels, if they were fetched
"""

import errno
import fcntl
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "2.11.0"  # what the `tch` of Cargo.toml binds
CHECKOUT = Path(__file__).resolve().parent.parent
VIEW = CHECKOUT / ".libtorch"
FORMAT = 1

# libtorch_cpu of the PyPI wheel needs these two to load, on hosts without CUDA as well. The versions are those that
# torch 2.11.0 asks for (cuda-toolkit 13.0.2).
CPU_WHEELS = [f"torch=={VERSION}", "nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"]
CPU_LIBRARIES = re.compile(r"(torch/lib/lib(torch_cpu|c10|torch_global_deps|gomp)\.|nvidia/.*/lib/lib(cudart|cupti)\.so)")
CUDA_LIBRARIES = re.compile(r"(torch/lib/.*|nvidia/.*/lib/[^/]*)\.so[.0-9]*$")
# A wheel for CPython 3.11 whatever Python runs this: only the C++ side is used. pip takes no platform but those named.
WHEEL_TAGS = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=abi3", "--abi=none"]
WHEEL_TAGS += [f"--platform=manylinux_2_{n}_x86_64" for n in range(28, 4, -1)]
WHEEL_TAGS += ["--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64"]
GIB = 1 << 30


class Refused(Exception):
    """Why there is no libtorch, in one line that ends in the remedy."""


def say(text):
    print(f"libtorch: {text}", file=sys.stderr, flush=True)


def version_of(folder):
    """The version of a libtorch or torch folder, or None if it says none."""
    try:
        return (folder / "build-version").read_text().strip()
    except OSError:
        pass
    try:
        found = re.search(r"^__version__ = ['\"]([^'\"]+)", (folder / "version.py").read_text(), re.M)
    except OSError:
        return None
    return found and found.group(1)


def same_version(version):
    return version.split("+")[0] == VERSION


def needed_by(library):
    """DT_NEEDED of an ELF64 little-endian shared library: the names that it asks the loader for."""
    with open(library, "rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            raise Refused(f"{library} is no 64-bit ELF library; point LIBTORCH at a Linux x86-64 libtorch")
        start, = struct.unpack_from("<Q", header, 40)
        size, count = struct.unpack_from("<HH", header, 58)
        file.seek(start)
        sections = [struct.unpack_from("<IIQQQQIIQQ", file.read(size)) for _ in range(count)]
        dynamic = next((s for s in sections if s[1] == 6), None)
        if dynamic is None:
            return []
        file.seek(dynamic[4])
        entries = list(struct.iter_unpack("<qQ", file.read(dynamic[5])))
        file.seek(sections[dynamic[6]][4])
        strings = file.read(sections[dynamic[6]][5])
    return [strings[at : strings.index(b"\0", at)].decode() for tag, at in entries if tag == 1]


def closure(torch):
    """The libraries that linking needs, {name: path}: libtorch_cpu and all it loads that the system does not bring."""
    folders = [torch / "lib", *sorted(torch.parent.glob("nvidia/*/lib"))]
    found, queue = {}, ["libtorch_cpu.so", "libc10.so"]
    while queue:
        name = queue.pop()
        path = next((folder / name for folder in folders if (folder / name).exists()), None)
        if path is None or name in found:
            continue
        found[name] = path
        queue += needed_by(path)
    for name in ("libtorch_cpu.so", "libc10.so"):
        if name not in found:
            raise Refused(f"{torch / 'lib'} has no {name}; point LIBTORCH at a complete libtorch {VERSION}, or unset it")
    return found


def lay_out(view, torch, origin, cuda):
    """Fills `view` with the links to `torch`: relative ones to what lies in the view itself, so that it can be moved."""

    def link(at, target):
        inside = view in target.parents
        at.symlink_to(os.path.relpath(target, at.parent) if inside else target)

    if not (torch / "include/torch/csrc/api/include/torch/torch.h").exists():
        raise Refused(f"{torch} has no C++ headers (include/torch/...); set LIMBECK_LIBTORCH=download to fetch a complete one")
    (view / "lib").mkdir(parents=True)
    link(view / "include", torch / "include")
    for name, path in closure(torch).items():
        link(view / "lib" / name, path)
        # The linker looks for libgomp.so; compilers other than gcc have none.
        if name.startswith("libgomp"):
            link(view / "lib" / "libgomp.so", path)
    (view / "lib" / "libtorch.so").write_text("GROUP ( libtorch_cpu.so )\n")
    (view / "build-version").write_text(origin["version"] + "\n")
    # Loading is the proof that nothing is missing; a process of its own, because gigabytes stay mapped.
    libraries = [torch / "lib/libtorch_cuda.so"] * cuda + [view / "lib/libtorch_cpu.so"]
    load = "import ctypes, sys\nfor path in sys.argv[:0:-1]: ctypes.CDLL(path, ctypes.RTLD_GLOBAL)"
    tried = subprocess.run(
        [sys.executable, "-c", load, *map(str, libraries)], stderr=subprocess.PIPE, universal_newlines=True
    )
    if tried.returncode:
        reason = (tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"])[-1]
        raise Refused(f"the libtorch at {torch} does not load: {reason}")
    (view / "origin.json").write_text(json.dumps(origin, indent=2) + "\n")


def pip_download(into, requirements, *options):
    """Fetches wheels into a folder. Nothing is installed, so an externally managed Python is no obstacle."""
    if importlib.util.find_spec("pip") is None:
        raise Refused(
            f"{sys.executable} has no pip to download with; install it (Debian: apt install python3-pip), or set LIBTORCH "
            f"to the folder of a libtorch {VERSION}"
        )
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--dest", str(into)]
    # pip fills its temporary folder first: on the same disk the wheels are then moved, not copied.
    environment = dict(os.environ, TMPDIR=str(into), PIP_REQUIRE_VIRTUALENV="0")
    pip = subprocess.Popen(
        command + WHEEL_TAGS + list(options) + requirements, stderr=subprocess.PIPE, universal_newlines=True, env=environment
    )
    _, errors = pip.communicate()
    if pip.returncode == 0:
        return
    if re.search("No space left|Errno 28", errors):
        raise OSError(errno.ENOSPC, "No space left on device")
    if re.search("NewConnectionError|NameResolution|name resolution|Connection|ProxyError|timed out|Network is unreach", errors):
        raise Refused(
            "pip cannot reach the package index: no network? Try again when there is, or set LIBTORCH to the folder of "
            f"a libtorch {VERSION}"
        )
    reasons = [line for line in errors.splitlines() if line.startswith("ERROR")] or errors.strip().splitlines()
    raise Refused(f"pip download failed: {reasons[-1] if reasons else f'exit status {pip.returncode}'}")


def cuda_requirements(wheel):
    """What the torch wheel itself asks for to run on a GPU: the nvidia wheels, without triton and the Python packages."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    wanted = [line.split(": ", 1)[1].split(";")[0].strip() for line in lines if line.startswith("Requires-Dist: ")]
    return [w for w in wanted if re.match(r"nvidia-|cuda-toolkit", w)]


def download(scratch, store, cuda):
    """Fetches and unpacks the wheels; returns the torch folder."""
    room, gib = shutil.disk_usage(scratch).free, 7 if cuda else 1.5
    if room < gib * GIB:
        raise OSError(errno.ENOSPC, f"{gib} GiB are needed and {room / GIB:.1f} GiB are free")
    say(f"fetching PyTorch {VERSION} with pip ({'about 2.5 GB, with the CUDA libraries' if cuda else 'about 550 MB'})")
    wheels = scratch / "wheels"
    wheels.mkdir()
    pip_download(wheels, CPU_WHEELS[:1] if cuda else CPU_WHEELS, "--no-deps")
    if cuda:
        pip_download(wheels, cuda_requirements(next(wheels.glob("torch-*.whl"))))
    say("unpacking")
    libraries = CUDA_LIBRARIES if cuda else CPU_LIBRARIES
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                notices = ".dist-info/licenses/" in name
                if libraries.match(name) or name.startswith("torch/include/") or name == "torch/version.py" or notices:
                    archive.extract(name, store)
        wheel.unlink()
    return store / "torch"


def refuse_version(what, version):
    raise Refused(
        f"{what} is version {version}, and Limbeck needs {VERSION}; install torch=={VERSION} there, or leave it and run "
        "`make libtorch LIMBECK_LIBTORCH=download`, which fetches the right one for Limbeck alone"
    )


def given_folder():
    """$LIBTORCH, unless it is unset or names the view itself."""
    given = os.environ.get("LIBTORCH")
    if not given or Path(given).resolve() == VIEW.resolve():
        return None
    return Path(given).expanduser().resolve()


def choose(cuda):
    """The folder to use and what it is, or None to download. Refuses a folder of the wrong version."""
    folder = given_folder()
    if folder is not None:
        version = version_of(folder)
        if version is None:
            raise Refused(
                f"LIBTORCH={folder} is no libtorch (neither build-version nor version.py is there); "
                f"point it at the folder of a libtorch {VERSION}, or unset it"
            )
        if not same_version(version):
            refuse_version(f"the libtorch at LIBTORCH={folder}", version)
        if cuda and not (folder / "lib/libtorch_cuda.so").exists():
            raise Refused(f"LIBTORCH={folder} is a CPU build (no lib/libtorch_cuda.so); unset it to fetch one with CUDA")
        return folder, "LIBTORCH"
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        spec = None
    folder = Path(spec.origin).resolve().parent if spec and spec.origin else None
    version = folder and version_of(folder)
    if not version:
        return None
    if not same_version(version):
        refuse_version(f"the PyTorch of {sys.executable} ({folder})", version)
    for file in ["include/torch/csrc/api/include/torch/torch.h", "lib/libtorch_cpu.so"] + ["lib/libtorch_cuda.so"] * cuda:
        if not (folder / file).exists():
            say(f"the PyTorch {version} at {folder} has no {file}: not used")
            return None
    return folder, "python"


def up_to_date(cuda, wish):
    """The view's origin, if it is there, still leads to what it was made from, and is what is asked for now."""
    try:
        origin = json.loads((VIEW / "origin.json").read_text())
        torch = VIEW / "store/torch" if origin["source"] == "download" else Path(origin["folder"])
        whole = all((VIEW / "lib" / name).exists() for name in origin["libraries"]) and (VIEW / "include/torch").is_dir()
        if origin["format"] != FORMAT or not whole or version_of(torch) != origin["version"] or not same_version(origin["version"]):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A download that was asked for stays, whatever LIBTORCH says the next time; any other view follows LIBTORCH.
    if wish == "download" and origin["source"] != "download":
        return None
    given = None if wish == "download" or origin.get("wish") == "download" else given_folder()
    if given is not None and str(given) != origin.get("folder"):
        return None
    return origin if origin.get("cuda") or not cuda else None


def main():
    if sys.argv[1:] not in ([], ["--cuda"]):
        raise Refused("the only option is --cuda")
    cuda = sys.argv[1:] == ["--cuda"]
    wish = os.environ.get("LIMBECK_LIBTORCH", "")
    if wish not in ("", "download"):
        raise Refused(f"LIMBECK_LIBTORCH={wish}: the only value is `download`")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Refused(f"{sys.platform} on {platform.machine()} is not supported; Limbeck runs on Linux x86-64")
    # Two runs at once: the second waits, then finds nothing to do. The checkout itself is the lock, which leaves no file.
    lock = os.open(CHECKOUT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    origin = up_to_date(cuda, wish)
    if origin:
        return
    for stale in CHECKOUT.glob(".libtorch-*"):
        shutil.rmtree(stale)
    chosen = None if wish == "download" else choose(cuda)
    scratch = Path(tempfile.mkdtemp(prefix=".libtorch-", dir=CHECKOUT))
    try:
        view = scratch / "view"
        view.mkdir(mode=0o755)
        torch, source = chosen or (download(scratch, view / "store", cuda), "download")
        version = version_of(torch)
        if not version or not same_version(version):
            raise Refused(f"pip brought PyTorch {version} where {VERSION} was asked for; check the package index in use")
        origin = {
            "format": FORMAT,
            "version": version,
            "source": source,
            "wish": wish,
            "folder": None if source == "download" else str(torch),
            "cuda": (torch / "lib/libtorch_cuda.so").exists(),
            "libraries": sorted(closure(torch)),
        }
        lay_out(view, torch, origin, cuda)
        if VIEW.is_symlink() or VIEW.exists():
            VIEW.rename(scratch / "old")
        view.rename(VIEW)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"{VIEW.name} is PyTorch {version}, {'from PyPI' if source == 'download' else f'from {torch}'}")


if __name__ == "__main__":
    # As Ctrl-C does: what is half done is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except Refused as refusal:
        sys.exit(f"error: {refusal}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; nothing was changed")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f"error: the disk of {CHECKOUT} is full ({error.strerror}); free some room and run `make libtorch` again")
        sys.exit(f"error: {error}")
