#!/usr/bin/env python3
"""Shows that a change of structure changed no result.

    python3 tests/digests/digests.py run target/debug/limbeck BEFORE      # with the program as it was
    python3 tests/digests/digests.py run target/debug/limbeck AFTER       # with the program as it is
    python3 tests/digests/digests.py compare BEFORE AFTER

`run` trains, on one thread, what the experiments beside this script describe: every built-in method, the CRD family, every
setting of training, ensembles, probes, a streamed folder of images, and one run that is killed again and again; with
`--quickstart` the quickstart too. It then writes the reports of all of them, the plan and the listing of every plugin. `compare` names every
file that differs. Weights, teachers, features and similarities are compared byte by byte; logs and summaries without the
seconds in them. Last bits depend on the processor: compare what one machine made.

`report PROGRAM FOLDER OUT` writes the reports of the runs in FOLDER with another program: reports are a function of run
folders, so those of FOLDER and OUT must be equal (`compare --reports FOLDER OUT`).
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What depends on the clock or the surroundings.
UNSTABLE = {"seconds", "samples_per_second", "epoch_seconds", "timing", "peak_memory", "environment", "time", "elapsed", "milliseconds", "path", "weights", "checkpoint"}
EXPERIMENTS = ["methods", "family", "training", "ensemble", "probes", "streamed", "killed"]


def png(width, height, pixels):
    """An RGB image of 8 bits."""
    rows = b"".join(b"\0" + pixels[3 * width * y : 3 * width * (y + 1)] for y in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def images(folder):
    """Three classes of drawn images, for the experiment that streams them."""
    state = 1
    for part, count in [("train", 24), ("val", 8)]:
        for name in range(3):
            where = folder / part / f"class{name}"
            where.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                pixels = bytearray()
                for _ in range(24 * 20 * 3):
                    state = (state * 1103515245 + 12345) % 2**31
                    pixels.append((state >> 16) % (64 * (name + 1)))
                (where / f"{index:02}.png").write_bytes(png(24, 20, bytes(pixels)))


def call(program, *arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.run([program, *map(str, arguments)], env=environment, check=True, capture_output=True, **options)


def kill_and_resume(program, file, out):
    """Calls the experiment until it ends, killing it at ever later moments."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for attempt in range(1, 60):
        process = subprocess.Popen(
            [program, "run", str(file), "--out", str(out)],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=out.parent,
        )
        try:
            process.wait(timeout=1.0 + 0.25 * attempt)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            continue
        if process.returncode == 0:
            print(f"  killed {attempt - 1} times", flush=True)
            return
        sys.exit(f"{file.name} ended with {process.returncode}")
    sys.exit(f"{file.name} did not end")


def run(program, folder, quickstart):
    program = str(Path(program).resolve())
    folder.mkdir(parents=True, exist_ok=True)
    images(folder / "images")
    runs = folder / "runs"
    files = [HERE / f"{name}.toml" for name in EXPERIMENTS]
    if quickstart:
        files.insert(0, HERE.parent.parent / "experiments" / "configs" / "quickstart.toml")
    for file in files:
        began = time.monotonic()
        copy = folder / file.name
        text = file.read_text()
        # The one of the files that trains on two threads when nothing is said.
        if "threads" not in text:
            text = text.replace("format = 1\n", "format = 1\nthreads = 1\n")
        copy.write_text(text)
        if file.stem == "killed":
            kill_and_resume(program, copy.resolve(), runs.resolve())
        else:
            call(program, "run", copy.name, "--out", "runs", cwd=folder)
        plan = call(program, "plan", copy.name, "--json", "--out", "runs", cwd=folder)
        (folder / f"{file.stem}.plan.json").write_bytes(plan.stdout)
        print(f"{file.stem}: {time.monotonic() - began:.0f} s", flush=True)
    listing = call(program, "plugins", "list", "--json").stdout
    (folder / "plugins.json").write_bytes(listing)
    report(program, folder, folder)


def report(program, folder, out):
    program = str(Path(program).resolve())
    for one in sorted((folder / "runs").iterdir()):
        if one.is_dir() and one.name != "teachers":
            target = out / "reports" / one.name
            if target.exists():
                shutil.rmtree(target)
            target.mkdir(parents=True)
            call(program, "report", one.resolve(), "--out", target.resolve())


def stable(value):
    if isinstance(value, dict):
        return {key: stable(inner) for key, inner in value.items() if key not in UNSTABLE}
    return [stable(inner) for inner in value] if isinstance(value, list) else value


def digest(path):
    if path.suffix == ".json" and "plan" not in path.name and path.name != "plugins.json":
        content = json.dumps(stable(json.loads(path.read_text()))).encode()
    elif path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        content = "\n".join(json.dumps(stable(line)) for line in lines if line.get("event") != "resumed").encode()
    else:
        content = path.read_bytes()
    return hashlib.sha256(content).hexdigest()


def results(folder, reports):
    """Every file whose content is a result, by its path in the folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or name.startswith("images"):
            continue
        if reports != name.startswith("reports/"):
            continue
        # A checkpoint holds times and is gone or replaced at the end; what it leads to is compared.
        if "checkpoint" in name or path.suffix in {".lock", ".tmp"} or "report/" in name and not reports:
            continue
        found[name] = digest(path)
    return found


def is_listing(name):
    """Whether the file is what the program says of itself, which may gain a key: to be read, and no result."""
    return name == "plugins.json" or name.endswith(".plan.json")


def compare(before, after, reports):
    old, new = results(before, reports), results(after, reports)
    differing = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    for name in differing:
        what = "differs" if name in old and name in new else "missing before" if name in new else "missing after"
        print(f"{what}{' (a listing: read it)' if is_listing(name) else ''}: {name}")
    wrong = [name for name in differing if not is_listing(name)]
    print(f"{len(old)} files before, {len(new)} after, {len(wrong)} results differ")
    sys.exit(1 if wrong or not old else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run")
    verb.add_argument("program")
    verb.add_argument("folder", type=Path)
    verb.add_argument("--quickstart", action="store_true")
    verb = verbs.add_parser("report")
    verb.add_argument("program")
    verb.add_argument("folder", type=Path)
    verb.add_argument("out", type=Path)
    verb = verbs.add_parser("compare")
    verb.add_argument("before", type=Path)
    verb.add_argument("after", type=Path)
    verb.add_argument("--reports", action="store_true")
    given = parser.parse_args()
    if given.verb == "run":
        run(given.program, given.folder, given.quickstart)
    elif given.verb == "report":
        report(given.program, given.folder, given.out)
    else:
        compare(given.before, given.after, given.reports)


if __name__ == "__main__":
    main()
