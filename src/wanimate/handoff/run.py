"""THE sequence of a hand-off: the gate is asked, the copies are made, the gate writes down that they leave, the folder gets its
name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Any

from wanimate.approval.leaving import Gate, Leaving, Passed, Way
from wanimate.approval.regions import checked_region
from wanimate.config import MarkSettings, OutputSettings
from wanimate.errors import Cancelled, InputError
from wanimate.events import Event, Notice
from wanimate.finish.lock import record_path
from wanimate.finish.naming import filled
from wanimate.handoff import copies
from wanimate.handoff.copies import Mezzanine
from wanimate.handoff.folder import APPROVAL, CHECKSUMS, FORMAT, Work, checksums, holding, told
from wanimate.handoff.gates import gate_for
from wanimate.handoff.notes import markers_of
from wanimate.handoff.package import Package, Role
from wanimate.handoff.source import Source, bytes_hash, open_source
from wanimate.handoff.timelines import FCPXML_RATES, Cut, Sound, fcpxml, otio
from wanimate.jobs.cancel import CancelToken
from wanimate.jobs.workspace import check_space
from wanimate.media.files import json_bytes, sha256
from wanimate.media.master import open_master
from wanimate.media.places import check_apart_from
from wanimate.media.probe import probe
from wanimate.post.base import VideoSpec
from wanimate.provenance import xmp
from wanimate.provenance.about import about_job
from wanimate.provenance.forms import MOV, MP4
from wanimate.review.markers import cut_edl, markers_csv, markers_edl, plain
from wanimate.review.records import Shot, Version
from wanimate.versions import version_of

_UNFIT = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff\u202a-\u202e\u2066-\u2069]+')
_LONGEST = 120
"""Bytes of a shot's name in names of files."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
"""How a place elsewhere begins."""
DERIVED: tuple[Role, ...] = ("review", "mezzanine", "matte", "thumbnail")
"""Files of a package that show the result."""


@dataclass(frozen=True)
class Order:
    """What is asked for.

    to: the package's folder; {shot}, {take} and {version:03} are filled in. name: of the files, without ending; None is that of
    the result. mezzanine: "auto" is the result itself where it is one, ProRes 4444 where it has opacity, else ProRes 422 HQ.
    regions: where it will be shown. producer: for the metadata. way, place: how it leaves and where to, as the gate is told;
    None is the folder.
    """

    to: Path
    name: str | None = None
    mezzanine: Mezzanine = "auto"
    regions: Sequence[str] = field(default_factory=tuple)
    producer: str = MarkSettings().producer
    way: Way = "handoff"
    place: str | None = None


def hand_off(
    result: Path | str, to: Path | str, name: str | None = None, mezzanine: Mezzanine = "auto",
    regions: Sequence[str] = (), review: tuple[Shot, Version] | None = None, gate: Gate | None = None,
) -> Package:  # fmt: skip
    """Make a package of a finished result, and return it.

    >>> wanimate.handoff.run.hand_off("S010_v003.mov", "out/{shot}_v{version:03}")

    Args:
        result: a video or a folder of pictures with its record beside it.
        to, name, mezzanine, regions: as `Order`.
        review: shot and version of the service's review; its comments become markers.
        gate: asked before anything leaves; without one, results of replacement are refused.

    Raises:
        InputError: the result cannot be used, or may not leave. OutputError: the package cannot be written.
    """
    events = handing_off(Path(result), Order(Path(to), name, mezzanine, tuple(regions)), review, gate)
    while True:
        try:
            next(events)
        except StopIteration as end:
            package: Package = end.value
            return package


def handing_off(
    result: Path, order: Order, review: tuple[Shot, Version] | None = None, gate: Gate | None = None,
    cancel: CancelToken | None = None,
) -> Generator[Event, None, Package]:  # fmt: skip
    """The same as a generator of events that returns the package. Closing it stops; the same call goes on there.

    Raises:
        InputError, OutputError: as `hand_off`. Cancelled: by `cancel`.
    """
    events = _handing_off(Path(result), order, review, gate or gate_for())
    try:
        while True:
            if cancel is not None and cancel.is_cancelled:
                raise Cancelled("stopped; the same hand-off goes on where it was")
            try:
                event = next(events)
            except StopIteration as end:
                package: Package = end.value
                return package
            yield event
    finally:
        events.close()


def _handing_off(
    result: Path, order: Order, review: tuple[Shot, Version] | None, gate: Gate
) -> Generator[Event, None, Package]:
    if order.mezzanine not in copies.MEZZANINES:
        rule = "there is no such file for the edit"
        raise InputError("mezzanine", order.mezzanine, rule, f"Give one of {', '.join(copies.MEZZANINES)}.")
    for region in order.regions:
        checked_region(region)
    source = open_source(result)
    place, stem = names_of(source, order, review)
    check_apart_from("to", (place,), (source.path, *(told.path for told in source.history)))
    leaving = Leaving(source.output_sha256, order.way, order.place or str(place), tuple(order.regions))
    gate.check(source.path, leaving)
    plans = copies.review_plan(source), copies.mezzanine_plan(source, order.mezzanine)
    _check_room(source, place, plans)
    with holding(place, source.output_sha256) as work:
        yield from _fill(work, source, stem, plans)
        cut = _timelines(work, source, stem, order, review)
        if cut.count.rate not in FCPXML_RATES:
            rate = f"{cut.count.rate} frames a second"
            yield Notice(f"Final Cut Pro has no projects of {rate}; the FCPXML file counts its frames all the same")
        derived = tuple((item.name, item.sha256) for item in work.items if item.role in DERIVED)
        leaving = replace(leaving, derived=derived)
        try:
            passed = gate.check(source.path, leaving)
        except InputError:
            work.discard()  # what may not leave does not stay where it would leave from
            raise
        _approve(work, source, stem, leaving, passed)
        if (package := work.unchanged()) is not None:
            work.discard()
            yield Notice("this package is there already, with the same files")
            return package
        work.leave_only_these()
        gate.left(leaving, passed)
        return work.finish(source.output_sha256)


def names_of(source: Source, order: Order, review: tuple[Shot, Version] | None) -> tuple[Path, str]:
    """The folder of a package, and what its files are called before their endings.

    Raises:
        InputError: a name asks for what nobody tells.
    """
    output = source.history[0].output
    shot = str(output.get("shot") or "") or (review[0].name if review is not None else source.path.stem)
    take = output.get("take")
    version = review[1].number if review is not None else source.record.get("version")
    known: Any = {
        "shot": plain(shot), "take": take if isinstance(take, int) else 1,
        "version": version if isinstance(version, int) else None,
    }  # fmt: skip
    if _ADDRESS.match(str(order.to)):
        raise InputError("to", order.to, "it is no folder", "Give the name of a new folder.")
    known["shot"] = _fit(known["shot"]).encode()[:_LONGEST].decode(errors="ignore")
    to = filled(str(order.to), **known, field="to")
    name = order.name
    if name is None:
        name = source.path.stem if review is None else "{shot}_v{version:03}"
    stem = _fit(filled(name, **known, field="name"))
    if not stem.strip("._ "):
        raise InputError("name", order.name, "it is empty, or has no letters", "Give the files a name.")
    return Path(to).absolute(), stem


def _check_room(source: Source, place: Path, plans: Sequence[copies.Plan | None]) -> None:
    """Refuse a disk that has no room for what will be encoded."""
    for plan in plans:
        if plan is not None and plan.way == "encode":
            size = source.best.size if plan.codec != "h264" else copies.review_size(*source.best.size)
            check_space(
                place, OutputSettings(codec=plan.codec), VideoSpec(size, source.master.fps, source.master.count)
            )


def _fit(name: str) -> str:
    """A name that every system takes, and that leads into no other folder."""
    return _UNFIT.sub("_", name).strip()


def _fill(
    work: Work, source: Source, stem: str, plans: tuple[copies.Plan, copies.Plan | None]
) -> Generator[Event, None, None]:
    """Everything that shows the result."""
    review, mezzanine = plans
    name = f"{stem}.review{review.ending}"
    key = _key(source, review)
    yield from _made(work, source, name, "review", key, lambda out: copies.write_review(source, review, out))
    if mezzanine is not None:
        key = _key(source, mezzanine, source.best.path)
        yield from _made(
            work, source, f"{stem}{mezzanine.ending}", "mezzanine", key,
            lambda out: copies.write_mezzanine(source, mezzanine, out),
        )  # fmt: skip
    if (matte := source.matte) is not None:
        master = open_master(matte, source.master.fps) if matte.is_dir() else None
        digest = sha256(matte) if master is None else bytes_hash(matte, master)
        key = _digest("matte", digest, source.count, version_of("wanimate"))
        ending = matte.suffix.lower() if master is None else ".mov"
        yield from _made(
            work, source, f"{stem}.matte{ending}", "matte", key,
            lambda out: copies.write_matte(source, matte, master, out),
        )  # fmt: skip
    places = {
        part: f"{stem}.{part}.{ending}"
        for part, ending in (("first", "jpg"), ("middle", "jpg"), ("last", "jpg"), ("poster", "png"))
    }
    key = _digest("thumbnails", sha256(work.path(name)), source.slate)
    if not all(work.has(place, "thumbnail", key) for place in places.values()):
        copies.write_thumbnails(
            work.path(name), source.slate, {part: work.making / place for part, place in places.items()}
        )
        for place in places.values():
            work.put(place, "thumbnail", key)


def _made(
    work: Work, source: Source, name: str, role: Role, key: str, write: Callable[[Path], Generator[Event, None, None]]
) -> Generator[Event, None, None]:
    """A file of the package, unless it is there already."""
    if not work.has(name, role, key):
        yield from write(work.making / name)
        source.check_unchanged()  # before the copy counts as one of this result
        work.put(name, role, key)


def _timelines(work: Work, source: Source, stem: str, order: Order, review: tuple[Shot, Version] | None) -> Cut:
    """The files that tell other programs of the result."""
    pictures = next(item for role in ("mezzanine", "review") for item in work.items if item.role == role)
    clip = probe(work.path(pictures.name), None, "result")
    markers = markers_of(source, review)
    cut = Cut(
        stem, pictures.name, source.master.count, (clip.width, clip.height), source.count, markers, Sound.of(clip),
        source.reel,
    )  # fmt: skip
    work.write(f"{stem}.otio", "otio", otio(cut).encode())
    work.write(f"{stem}.fcpxml", "fcpxml", fcpxml(cut).encode())
    cutting = cut_edl(stem, source.count, source.reel, source.master.count, pictures.name)
    work.write(f"{stem}.edl", "edl", cutting.encode())
    work.write(f"{stem}.markers.edl", "edl", markers_edl(stem, source.count, markers).encode())
    work.write(f"{stem}.markers.csv", "markers", markers_csv(stem, source.count, markers).encode("utf-8-sig"))
    form = MOV if pictures.name.endswith(".mov") else MP4
    about = about_job(dict(source.history[-1].record), _id_of(source))
    work.write(f"{stem}.xmp", "xmp", xmp.packet(about, order.producer, form))
    work.write(f"{stem}.json", "record", record_path(source.path).read_bytes())
    return cut


def _approve(work: Work, source: Source, stem: str, leaving: Leaving, passed: Passed) -> None:
    """The file that tells what the package is, and why it may leave; then the hashes of all."""
    found = {
        "format": FORMAT, "name": stem, "wanimate": version_of("wanimate"), "output": source.path.name,
        "output_sha256": source.output_sha256, "mode": source.mode, "regions": list(leaving.regions),
        "decisions": list(passed.decisions), "expires": passed.expires,
        "frames": source.master.count, "rate": source.master.fps, "start": source.count.label(source.count.start),
        "files": told(iter(work.items), work.keys),
    }  # fmt: skip
    if not source.count.exact:
        found["start"] = None
    work.write(f"{stem}{APPROVAL}", "approval", json_bytes(found, 1, str))
    work.write(f"{stem}{CHECKSUMS}", "checksums", checksums(work.items))


def _id_of(source: Source) -> str:
    """The result's own id where it is marked, else one that the same bytes always have."""
    marks = source.record.get("marks")
    id = marks.get("id") if isinstance(marks, dict) else None
    return id if isinstance(id, str) else source.output_sha256[:32]


def _key(source: Source, plan: copies.Plan, best: Path | None = None) -> str:
    """What decides a copy."""
    return _digest(source.output_sha256, plan, str(best), source.count, source.reel, version_of("wanimate"))


def _digest(*parts: Any) -> str:
    return sha256_of(json.dumps([repr(part) for part in parts]).encode()).hexdigest()
