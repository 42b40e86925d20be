"""What goes into an archive, what is refused, and what is told of it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bagit
import pytest
from rocrate.rocrate import ROCrate

sys.path.insert(0, str(Path(__file__).parent))
from finished import finished, noise, picture, record_of

from wanimate.approval.leaving import Leaving, Passed
from wanimate.archive.bag import NewBag, Packed
from wanimate.archive.items import item_of, items_below
from wanimate.archive.make import Choice, Incomplete, Made, Title, make
from wanimate.archive.mhl import c4
from wanimate.archive.verify import verify
from wanimate.errors import InputError
from wanimate.weights.fingerprint import fingerprint

TITLE = Title("hero", "result", "Ann Lee")


def archived(result: Path, out: Path, **choice: Any) -> Made:
    return make([item_of(result)], out, TITLE, Choice(**choice))


def index(bag: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bag / "data" / "archive.json").read_text())
    return found


def payload(bag: Path) -> set[str]:
    return {path.relative_to(bag / "data").as_posix() for path in (bag / "data").rglob("*") if path.is_file()}


def test_a_result(tmp_path: Path) -> None:
    result = finished(tmp_path / "work")
    noise(tmp_path / "work" / "hero.xmp", 100)
    made = archived(result, tmp_path / "bag")
    assert bagit.Bag(str(tmp_path / "bag")).validate()
    assert verify(tmp_path / "bag").code == 0
    assert payload(tmp_path / "bag") == {
        "archive.json", "ro-crate-metadata.json", "results/hero/hero.mp4", "results/hero/hero.json", "results/hero/hero.xmp",
        "inputs/face.png", "inputs/dance.mp4",
    }  # fmt: skip
    assert (made.results, made.files, made.lacks) == (("hero",), 7, ())
    (entry,) = index(tmp_path / "bag")["results"]
    assert entry["inputs"] == {"image": "inputs/face.png", "video": "inputs/dance.mp4"}
    assert (tmp_path / "bag/data/results/hero/hero.mp4").read_bytes() == result.read_bytes()


def test_the_crate(tmp_path: Path) -> None:
    archived(finished(tmp_path / "work"), tmp_path / "bag")
    crate = ROCrate(tmp_path / "bag" / "data")
    assert crate.metadata.version == "1.3"
    (action,) = [one for one in crate.get_entities() if one.type == "CreateAction"]
    assert action["description"] == "a dancer"
    assert action["result"].id == "results/hero/hero.mp4"
    assert action["agent"]["name"] == "Ann Lee"
    assert action["endTime"] == "2026-11-30T12:00:00+00:00"
    program, weights = action["instrument"]
    assert (program.type, program["softwareVersion"], program["identifier"]["value"]) == (
        "SoftwareApplication",
        "0.1.0",
        "ab" * 20,
    )
    assert [one["value"] for one in weights["identifier"]] == ["sha256:" + "1" * 64]
    objects = {one.id: one for one in action["object"]}
    assert {"inputs/face.png", "inputs/dance.mp4", "#hero-seed"} <= objects.keys()
    assert objects["#hero-seed"]["value"] == 7
    files = {one.id: one for one in crate.get_entities() if one.type == "File"}
    assert files.keys() == payload(tmp_path / "bag") - {"ro-crate-metadata.json"}
    for name, one in files.items():
        data = (tmp_path / "bag" / "data" / name).read_bytes()
        assert (one["contentSize"], one["sha256"]) == (str(len(data)), hashlib.sha256(data).hexdigest())
    assert files["results/hero/hero.mp4"]["encodingFormat"] == "video/mp4"
    root = crate.root_dataset
    assert all(root[name] for name in ("name", "description", "datePublished", "license"))
    ids = [one["@id"] for one in json.loads((tmp_path / "bag/data/ro-crate-metadata.json").read_text())["@graph"]]
    assert len(ids) == len(set(ids))
    assert {one.id for one in root["hasPart"]} >= files.keys()


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda w: edit(w / "in/dance.mp4"), "video .*dance.mp4: it changed since the job"),
        (lambda w: (w / "in/face.png").unlink(), "image .*face.png: it is not there any more"),
        (lambda w: ((w / "in/dance.mp4").unlink(), os.mkfifo(w / "in/dance.mp4")), "it is not a plain file"),
    ],
    ids=["changed", "gone", "pipe"],
)  # fmt: skip
def test_inputs_that_are_not_as_they_were(tmp_path: Path, what: Any, words: str) -> None:
    result = finished(tmp_path / "work")
    what(tmp_path / "work")
    with pytest.raises(Incomplete, match=words):
        archived(result, tmp_path / "bag")
    assert {path.name for path in tmp_path.iterdir()} == {"work"}
    made = archived(result, tmp_path / "bag", allow_missing=True)
    assert verify(tmp_path / "bag").code == 0
    assert len(made.lacks) == 1
    (told,) = index(tmp_path / "bag")["lacks"]
    assert told["words"] in made.lacks[0].told
    assert len([name for name in payload(tmp_path / "bag") if name.startswith("inputs/")]) == 1


def test_a_result_that_changed_is_never_archived(tmp_path: Path) -> None:
    result = finished(tmp_path / "work")
    edit(result)
    with pytest.raises(Incomplete, match=r"result .*hero\.mp4: it changed since the job"):
        archived(result, tmp_path / "bag", allow_missing=True)
    assert not (tmp_path / "bag").exists()


def test_a_link_in_place_of_the_result(tmp_path: Path) -> None:
    result = finished(tmp_path / "work")
    result.rename(tmp_path / "elsewhere.mp4")
    result.symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(Incomplete, match="it is a link"):
        archived(result, tmp_path / "bag")


def test_what_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no record of its job"):
        item_of(noise(tmp_path / "a.mp4"))
    result = finished(tmp_path / "work")
    with pytest.raises(InputError, match=r"the record beside it is of hero\.mp4"):
        item_of(result.rename(result.with_suffix(".mov")))
    with pytest.raises(InputError, match="no finished result"):
        items_below(tmp_path / "work" / "in")


def test_odd_names(tmp_path: Path) -> None:
    """Names that some systems do not take, names that differ by case, and long ones."""
    result = finished(tmp_path / "work", "50% off: Hero?.mp4")
    data = json.loads(result.with_suffix(".json").read_text())
    long = "ü" * 110
    for role, name in (("image", f"{long}.png"), ("video", "CON.mp4"), ("mask", "con.MP4")):
        path = noise(tmp_path / "work" / name, len(role))
        data["inputs"][role] = {"path": str(path), "sha256": fingerprint(path)}
    result.with_suffix(".json").write_text(json.dumps(data))
    archived(result, tmp_path / "bag")
    assert bagit.Bag(str(tmp_path / "bag")).validate()
    assert verify(tmp_path / "bag").code == 0
    names = payload(tmp_path / "bag")
    assert {"results/50_ off_ Hero_/50_ off_ Hero_.mp4", "inputs/_CON.mp4", "inputs/_con-2.MP4"} <= names
    assert all(len(part.encode()) <= 120 for name in names for part in name.split("/"))
    ROCrate(tmp_path / "bag" / "data")


def test_a_folder_of_results(tmp_path: Path) -> None:
    """Inputs that results share are there once; marked copies belong to their original."""
    finished(tmp_path / "work")
    other = noise(tmp_path / "work" / "deep" / "take.2.mkv", 500)
    image = tmp_path / "work" / "in" / "face.png"
    told = {"image": {"path": str(image), "sha256": fingerprint(image)}}
    other.with_suffix(".json").write_text(json.dumps(record_of(other, told)))
    marked = noise(tmp_path / "work" / "hero.marked.mp4", 700)
    marked.with_suffix(".json").write_text(json.dumps(record_of(marked, told, marks={"id": "x"})))
    archived(other, tmp_path / "work" / "older")  # archives are no results
    items = items_below(tmp_path / "work")
    assert [item.name for item in items] == ["hero", "deep-take.2"]
    make(items, tmp_path / "bag", TITLE)
    names = payload(tmp_path / "bag")
    assert {"results/hero/hero.marked.mp4", "results/hero/hero.marked.json", "results/deep-take.2/take.2.mkv"} <= names
    assert [name for name in names if name.endswith("face.png")] == ["inputs/face.png"]


def test_a_sequence(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "hero"
    on_end = hashlib.sha256()
    for number in range(3):
        on_end.update(picture(folder / f"hero.{number:04}.png", number).read_bytes())
    record = record_of(folder, {})
    record["result"]["sha256"] = f"sha256:{on_end.hexdigest()}"
    (tmp_path / "work" / "hero.json").write_text(json.dumps(record))
    archived(folder, tmp_path / "bag")
    (entry,) = index(tmp_path / "bag")["results"]
    assert entry["result"] == "results/hero/hero/"
    (pictures,) = [one for one in ROCrate(tmp_path / "bag" / "data").get_entities() if one.id == "results/hero/hero/"]
    assert len(pictures["hasPart"]) == 3
    picture(folder / "hero.0001.png", 99)
    with pytest.raises(Incomplete, match="its pictures are not those"):
        archived(folder, tmp_path / "other")


def test_guides_and_the_clip_that_they_name(tmp_path: Path) -> None:
    guides, clip = tmp_path / "guides", noise(tmp_path / "dance.mp4")
    pose = noise(guides / "pose.mkv")
    source = {"path": str(clip), "sha256": fingerprint(clip)[7:], "frames": [0]}
    (guides / "manifest.json").write_text(json.dumps({"format": "wanimate-guides", "source": source}))
    files = {name: fingerprint(guides / name) for name in ("pose.mkv", "manifest.json")}
    out = noise(tmp_path / "work" / "hero.mp4")
    told = {"guides": {"path": str(guides), "files": files}}
    out.with_suffix(".json").write_text(json.dumps(record_of(out, told)))
    archived(out, tmp_path / "bag")
    (entry,) = index(tmp_path / "bag")["results"]
    assert (entry["guides"], entry["inputs"]) == ("guides/guides/", {"video": "inputs/dance.mp4"})
    assert {"guides/guides/pose.mkv", "guides/guides/manifest.json"} <= payload(tmp_path / "bag")
    edit(pose)
    with pytest.raises(Incomplete, match=r"guides .*: pose.mkv: it changed since the job"):
        archived(out, tmp_path / "other")


def test_large_loras_are_told_by_their_hash(tmp_path: Path) -> None:
    lora = noise(tmp_path / "style.safetensors", 5000)
    result = finished(tmp_path / "work", lora=[{"path": str(lora), "sha256": fingerprint(lora)}])
    archived(result, tmp_path / "small", largest_lora=4000)
    archived(result, tmp_path / "whole")
    assert "loras/style.safetensors" in payload(tmp_path / "whole") - payload(tmp_path / "small")
    assert index(tmp_path / "small")["results"][0]["lora"] == [None]
    absent = [one for one in ROCrate(tmp_path / "small" / "data").get_entities() if "absent" in one.id]
    assert [one["identifier"] for one in absent] == [fingerprint(lora)]
    edit(lora)
    with pytest.raises(Incomplete, match=r"lora .*its hash is not the one"):
        archived(result, tmp_path / "other", largest_lora=4000)


def test_documents(tmp_path: Path) -> None:
    consent = noise(tmp_path / "consent.pdf")
    archived(
        finished(tmp_path / "work"), tmp_path / "bag", documents={"consent.pdf": consent, "review/shot.json": b"{}"}
    )
    assert {"documents/consent.pdf", "review/shot.json"} <= payload(tmp_path / "bag")
    with pytest.raises(Incomplete, match=r"document .*gone\.pdf"):
        archived(tmp_path / "work" / "hero.mp4", tmp_path / "other", documents={"gone.pdf": tmp_path / "gone.pdf"})


class AGate:
    def __init__(self, allows: bool) -> None:
        self.allows, self.asked, self.gone = allows, list[Leaving](), list[Leaving]()

    def check(self, result: Path, leaving: Leaving) -> Passed:
        self.asked.append(leaving)
        if not self.allows:
            raise InputError("result", result, "it is not approved", "Have it approved.")
        return Passed(("decision_1",))

    def left(self, leaving: Leaving, passed: Passed) -> None:
        self.gone.append(leaving)


def test_the_gate_is_asked_of_the_very_bytes(tmp_path: Path) -> None:
    result = finished(tmp_path / "work")
    closed, opened = AGate(False), AGate(True)
    with pytest.raises(InputError, match="not approved"):
        archived(result, tmp_path / "bag", gate=closed)
    assert not (tmp_path / "bag").exists()
    archived(result, tmp_path / "bag", gate=opened)
    assert opened.gone == [Leaving(fingerprint(result)[7:], "archive", str(tmp_path / "bag"))]
    assert closed.gone == []


def test_killed_in_the_middle(tmp_path: Path) -> None:
    result, out = finished(tmp_path / "work"), tmp_path / "out" / "bag"
    copied = list[str]()

    def dying(bag: NewBag, name: str, source: Path, links: bool = False) -> Packed:
        copied.append(name)
        if len(copied) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return copy(bag, name, source, links)

    copy = NewBag.copy
    pid = os.fork()
    if pid == 0:
        try:
            NewBag.copy = dying  # type: ignore[method-assign]
            archived(result, out)
        finally:
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert not out.exists()
    assert list(out.parent.glob(".bag.*.part"))
    archived(result, out)
    assert [path.name for path in out.parent.iterdir()] == ["bag"]
    assert verify(out).code == 0


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes no byte more."""
    from wanimate.archive import bag

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bag.os, "fsync", no_room)


@pytest.mark.usefixtures("full")
def test_a_full_disk(tmp_path: Path) -> None:
    result = finished(tmp_path / "work")
    with pytest.raises(InputError, match="the disk is full"):
        archived(result, tmp_path / "bag", allow_missing=True)
    assert not (tmp_path / "bag").exists()


def test_a_history_for_camera_departments(tmp_path: Path) -> None:
    archived(finished(tmp_path / "work"), tmp_path / "bag", mhl=True)
    assert verify(tmp_path / "bag").code == 0
    payload_folder = tmp_path / "bag" / "data"
    (manifest,) = (payload_folder / "ascmhl").glob("0001_data_*Z.mhl")
    space = {"m": "urn:ASC:MHL:v2.0"}
    rows = ElementTree.parse(manifest).getroot().findall("m:hashes/m:hash", space)
    told = {row.findtext("m:path", "", space): row.findtext("m:c4", "", space) for row in rows}
    assert told.keys() == {name for name in payload(tmp_path / "bag") if not name.startswith("ascmhl/")}
    for name, id_ in told.items():
        assert id_ == c4(hashlib.sha512((payload_folder / name).read_bytes()).hexdigest())
    chain = ElementTree.parse(payload_folder / "ascmhl" / "ascmhl_chain.xml").getroot()
    spaced = {"d": "urn:ASC:MHL:DIRECTORY:v2.0"}
    assert chain.findtext("d:hashlist/d:path", "", spaced) == manifest.name
    assert chain.findtext("d:hashlist/d:c4", "", spaced) == c4(hashlib.sha512(manifest.read_bytes()).hexdigest())
    assert "ascmhl/" in {one.id for one in ROCrate(payload_folder).get_entities()}


def test_c4_ids() -> None:
    """The standard's own vectors: nothing at all, and all bits."""
    nothing = hashlib.sha512(b"").hexdigest()
    assert c4(nothing) == "c459dsjfscH38cYeXXYogktxf4Cd9ibshE3BHUo6a58hBXmRQdZrAkZzsWcbWtDg5oQstpDuni4Hirj75GEmTc1sFT"
    assert c4("0" * 128) == "c4" + "1" * 88
    assert len(c4("f" * 128)) == 90


def test_guides_that_the_job_has_kept(tmp_path: Path) -> None:
    """Their videos are held against the record's fingerprint."""
    guides = tmp_path / "guides"
    pose = noise(guides / "pose.mkv")
    noise(guides / "notes.txt")
    (guides / "manifest.json").write_text(json.dumps({"format": "wanimate-guides", "files": {"pose": "pose.mkv"}}))
    told = {"guides": str(guides), "fingerprint": {"guides": {"pose.mkv": fingerprint(pose)}}}
    result = finished(tmp_path / "work", **told)
    archived(result, tmp_path / "bag")
    assert {"guides/guides/pose.mkv", "guides/guides/manifest.json"} <= payload(tmp_path / "bag")
    assert "guides/guides/notes.txt" not in payload(tmp_path / "bag")
    pose.rename(guides / "elsewhere.mkv")
    pose.symlink_to(guides / "elsewhere.mkv")
    with pytest.raises(Incomplete, match=r"pose\.mkv: it is a link"):
        archived(result, tmp_path / "other")
    pose.unlink()
    noise(pose, 999)
    with pytest.raises(Incomplete, match=r"pose\.mkv: it changed since the job"):
        archived(result, tmp_path / "other")
    moved = finished(tmp_path / "moved", fingerprint=told["fingerprint"])
    noise(pose)
    make([item_of(moved, guides=guides)], tmp_path / "named", TITLE)
    assert "guides/guides/pose.mkv" in payload(tmp_path / "named")


@pytest.mark.parametrize(
    "change",
    [
        lambda t, secret: t["inputs"].update(image={"path": secret}),
        lambda t, secret: t["inputs"].update(mask={"path": secret}),
        lambda t, secret: t["inputs"].update(guides={"path": str(Path(secret).parent), "files": {"secret.txt": None}}),
        lambda t, secret: t["inputs"].update(guides={"path": "/", "files": {secret[1:]: None}}),
        lambda t, secret: t.update(lora=[{"path": secret}]), lambda t, secret: t.update(sheet={"name": secret}),
        lambda t, secret: t.update(matte={"name": secret}, output={"matte": secret}),
    ],
)  # fmt: skip
def test_a_record_that_names_other_files_of_the_user(tmp_path: Path, change: Any) -> None:
    """A stranger's record could name anything: without a hash of it nothing is taken."""
    secret = noise(tmp_path / "secret.txt", 50)
    result = finished(tmp_path / "work")
    told = json.loads(result.with_suffix(".json").read_text())
    change(told, str(secret))
    result.with_suffix(".json").write_text(json.dumps(told))
    with pytest.raises(Incomplete):
        archived(result, tmp_path / "bag")
    archived(result, tmp_path / "bag", allow_missing=True)
    assert not any(path.read_bytes() == secret.read_bytes() for path in (tmp_path / "bag").rglob("*") if path.is_file())


def test_networks_have_a_network_s_ending(tmp_path: Path) -> None:
    secret, network = noise(tmp_path / "secret.txt", 50), noise(tmp_path / "4x.pth", 60)
    for path, taken in ((secret, False), (network, True)):
        result = finished(tmp_path / path.stem, output={"codec": "h264", "upscale_network": str(path)})
        archived(result, tmp_path / f"bag-{path.stem}")
        assert (f"networks/{path.name}" in payload(tmp_path / f"bag-{path.stem}")) == taken


@pytest.mark.parametrize("value", [3, "x", [3], {"path": 3, "hashes": 3, "guides": 3, "prompt": 3, "image": 3}, None])
@pytest.mark.parametrize(
    "key", ["inputs", "lora", "sheet", "matte", "output", "guides", "fingerprint", "checkpoint", "settings"]
)
def test_odd_records_end_in_a_sentence_or_a_bag(tmp_path: Path, key: str, value: Any) -> None:
    result = finished(tmp_path / "work", **{key: value})
    try:
        archived(result, tmp_path / "bag", allow_missing=True)
    except InputError:
        assert not (tmp_path / "bag").exists()
    else:
        assert verify(tmp_path / "bag").code == 0
