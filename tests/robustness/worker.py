"""Runs cases one after the other: reads "kind seed" lines, writes one JSON object each. A crash takes this process only."""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [
    str(TESTS / place) for place in ("robustness", "unit/weights", "unit/media", "unit/preprocess", "parity")
]

ROOM = 3 * 2**30
"""Bytes that a case may ask for beyond what the process has when it starts."""
NEVER_SAID = ("weights_only", "allow_pickle", "trust_remote_code", "Traceback", "set_int_max_str_digits", "defect")


def damage(folder: Path, kind: str, seed: int) -> str:
    """Damage one file of the folder; returns its name."""
    from kinds import damage_quantised, damage_training, names
    from mutations import TEXTS, mutation

    source = random.Random(f"{kind} {seed}")
    if kind == "training" and source.random() < 0.6:
        damage_training(folder, source)
        return "state.pt"
    if kind == "quantised" and source.random() < 0.6:
        return damage_quantised(folder, source)
    found = names(folder)
    manifests = [name for name in found if name.endswith((".json", ".safetensors"))]
    name = source.choice(manifests if manifests and source.random() < 0.4 else found)
    path = folder / name
    data = mutation(name, source)(path.read_bytes(), source)
    for text, place in (("FIFO", "pipe"), ("LINK", "link")):
        assert text in TEXTS
        data = data.replace(json.dumps(text).encode(), json.dumps(str(folder / place)).encode())
    path.write_bytes(data)
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("/etc/passwd")
    return name


def outcome(folder: Path, kind: str, name: str) -> dict[str, str]:
    from kinds import KINDS

    from wanimate.errors import WanimateError

    try:
        KINDS[kind].use(folder, name)
    except WanimateError as error:
        text = str(error)
        if error.exit_code != 2 or "\n" in text or len(text) > 6000 or any(word in text for word in NEVER_SAID):
            return {"fault": f"{type(error).__name__} with exit code {error.exit_code}: {text[:1000]}"}
        return {"refused": text[:300]}
    except BaseException as error:
        return {"fault": f"{type(error).__name__}: {str(error)[:300]}", "where": traceback.format_exc()[-3000:]}
    return {"accepted": ""}


def main() -> None:
    faulthandler.enable()
    place = Path(tempfile.mkdtemp(prefix="robustness-"))
    os.environ["ROBUSTNESS"] = str(place)
    os.environ["WANIMATE_CACHE"] = str(place / "cache")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        import torch
        from kinds import KINDS

        torch.set_num_threads(1)
        ready: set[str] = set()
        for line in sys.stdin:
            kind, seed = line.split()
            sound = place / f"sound-{kind}"
            if kind not in ready:
                sound.mkdir()
                KINDS[kind].make(sound)
                accept(sound, kind, place / "warm")
                ready.add(kind)
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
            folder = shutil.copytree(sound, place / "case")
            name = damage(folder, kind, int(seed))
            print(json.dumps({"file": name} | outcome(folder, kind, name)), file=answers, flush=True)
            shutil.rmtree(folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def accept(sound: Path, kind: str, place: Path) -> None:
    """Use what is not damaged: every file that lies in the folder itself, one of each folder in it."""
    from kinds import KINDS, names

    for name in {Path(name).parts[0]: name for name in names(sound)}.values():
        KINDS[kind].use(shutil.copytree(sound, place), name)
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
