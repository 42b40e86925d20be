"""The demo's job by HTTP: start a service, send picture and clip, wait, save the video. `make serve-demo` runs it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import httpx

from wanimate.media.files import AtomicFile
from wanimate.weights.locate import embedded_path


def main() -> None:
    """Submit over OpenAI's videos routes and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/serve-demo.mp4"))
    parser.add_argument("--data", type=Path, default=Path("out/serve"))
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    assets = embedded_path().parent / "demo"
    image = sorted(assets.glob("*.png"))[0]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    here = [sys.executable, "-m", "wanimate"]
    key = subprocess.run(
        [*here, "keys", "create", "--owner", "demo", "--data", given.data], check=True, capture_output=True, text=True
    ).stdout.strip()
    log = (given.data / "serve.log").open("w")
    command = [*here, "serve", "--port", "0", "--data", given.data]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert service.stdout is not None
        address = service.stdout.readline().split()[-1]
        print(f"the service is at {address}")
        saved = made(address, key, image, assets / "performer.mp4", given.seed)
        with AtomicFile(given.out) as file:
            file.write(saved)
        print(f"the video is {given.out}")
    finally:
        service.terminate()
        service.wait()
        log.close()


def made(address: str, key: str, image: Path, clip: Path, seed: int) -> bytes:
    """Create a job, tell how it goes, and return its video. Raises RuntimeError if it fails."""
    with httpx.Client(
        base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False
    ) as client:
        files = {
            "input_reference": (image.name, image.read_bytes(), "image/png"),
            "input_video": (clip.name, clip.read_bytes(), "video/mp4"),
        }
        video = client.post("/v1/videos", data={"prompt": "", "seed": str(seed)}, files=files).raise_for_status().json()
        told = ""
        while video["status"] in ("queued", "in_progress"):
            time.sleep(1)
            video = client.get(f"/v1/videos/{video['id']}").raise_for_status().json()
            now = f"{video['status']} {video['progress']} %"
            if now != told:
                print(now, flush=True)
                told = now
        if video["status"] != "completed":
            raise RuntimeError(f"the job has failed: {video['error']}")
        return client.get(f"/v1/videos/{video['id']}/content").raise_for_status().content


if __name__ == "__main__":
    main()
