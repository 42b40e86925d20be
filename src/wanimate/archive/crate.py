"""The RO-Crate of an archive (RO-Crate 1.3): what was made, of what, by what, in words that other programs know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from wanimate.archive.bag import Packed

METADATA = "ro-crate-metadata.json"
CONTEXT, PROFILE = "https://w3id.org/ro/crate/1.3/context", "https://w3id.org/ro/crate/1.3"
FORMATS = {
    ".mp4": "video/mp4", ".mov": "video/quicktime", ".mkv": "video/x-matroska", ".webm": "video/webm",
    ".avi": "video/x-msvideo", ".gif": "image/gif", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg",
    ".webp": "image/webp", ".tif": "image/tiff", ".tiff": "image/tiff", ".bmp": "image/bmp", ".heic": "image/heic",
    ".avif": "image/avif", ".jp2": "image/jp2", ".exr": "image/x-exr", ".wav": "audio/wav", ".json": "application/json",
    ".xmp": "application/rdf+xml", ".c2pa": "application/c2pa", ".npz": "application/zip", ".zip": "application/zip",
    ".pdf": "application/pdf", ".txt": "text/plain", ".md": "text/markdown", ".csv": "text/csv", ".edl": "text/plain",
    ".toml": "application/toml", ".mhl": "application/xml", ".otio": "application/json", ".fcpxml": "application/xml",
}  # fmt: skip
WHAT = {
    "result": "the result", "record": "the record of the job", "sheet": "contact sheet", "matte": "the character's matte",
    "sidecar": "file beside the result", "image": "picture of the character", "video": "clip of the performance",
    "mask": "hand-made mask of the performer", "master": "master that was finished", "network": "network that enlarges",
    "guides": "guides: the performance as the network is told of it", "lora": "LoRA", "document": "document of the house",
    "review": "comments and decisions of a review", "mhl": "history of ASC MHL 2.0, with the C4 ID of every other file",
    "index": "what the archive holds, for `wanimate archive redo`",
}  # fmt: skip


@dataclass(frozen=True)
class Story:
    """How one result came to be. `result`, `files`: role and name in the payload; a folder ends with "/". `absent`: (what it
    was, its hash or "") of inputs that are not in the archive."""

    name: str
    record: Mapping[str, Any]
    result: str
    objects: Sequence[tuple[str, str]]
    absent: Sequence[tuple[str, str]]


def crate(
    title: str, agent: str, licence: str, files: Iterable[Packed], roles: Mapping[str, str], stories: Sequence[Story]
) -> dict[str, Any]:
    """The content of `ro-crate-metadata.json`.

    Args:
        files: the whole payload but this file. roles: what a file or a folder is, by name.
    """
    found = sorted(files, key=lambda one: one.name)
    graph: list[dict[str, Any]] = [
        {
            "@id": METADATA, "@type": "CreativeWork", "about": _to("./"), "conformsTo": _to(PROFILE),
            "encodingFormat": "application/ld+json",
        },
    ]  # fmt: skip
    data = [*_folders(found, roles), *(_file(one, roles) for one in found)]
    people = {"@id": "#agent", "@type": "Person", "name": agent}
    terms = {"@id": "#licence", "@type": "CreativeWork", "name": licence}
    made = [one for story in stories for one in _made(story)]
    actions = [one["@id"] for one in made if one["@type"] == "CreateAction"]
    root = {
        "@id": "./", "@type": "Dataset", "name": title,
        "description": f"Archive of {title}: results of wanimate, what they were made of, and what was decided about them.",
        "datePublished": datetime.now(UTC).isoformat(timespec="seconds"), "license": _to("#licence"), "creator": _to("#agent"),
        "hasPart": [_to(one["@id"]) for one in data], "mentions": [_to(one) for one in actions],
    }  # fmt: skip
    seen: dict[str, dict[str, Any]] = {}
    for entity in (*graph, root, *data, people, terms, *made):
        seen.setdefault(entity["@id"], entity)
    return {"@context": CONTEXT, "@graph": list(seen.values())}


def reference(name: str) -> str:
    """A name in the payload as a URI: "a b.mp4" -> "a%20b.mp4"."""
    return quote(name)


def _to(id: str) -> dict[str, str]:
    return {"@id": id}


def _file(one: Packed, roles: Mapping[str, str]) -> dict[str, Any]:
    path = PurePosixPath(one.name)
    role = roles.get(one.name)
    return {
        "@id": reference(one.name), "@type": "File", "name": path.name, "contentSize": str(one.size), "sha256": one.sha256,
        "encodingFormat": FORMATS.get(path.suffix.lower(), "application/octet-stream"),
        **({"description": WHAT[role]} if role else {}),
    }  # fmt: skip


def _folders(files: Sequence[Packed], roles: Mapping[str, str]) -> list[dict[str, Any]]:
    """A dataset for each folder that is a thing of its own: guides, sequences of pictures."""
    found = []
    for name in sorted(name for name in roles if name.endswith("/")):
        inside = [_to(reference(one.name)) for one in files if one.name.startswith(name)]
        what = WHAT[roles[name]]
        found.append(
            {
                "@id": reference(name), "@type": "Dataset", "name": PurePosixPath(name).name, "description": what,
                "hasPart": inside,
            }
        )  # fmt: skip
    return found


def _made(story: Story) -> list[dict[str, Any]]:
    """A CreateAction, and what it names beside files."""
    record = story.record
    version = str(record.get("wanimate") or "from its sources")
    commit = record.get("commit")
    program: dict[str, Any] = {
        "@id": f"#wanimate-{quote(version)}{'-' + quote(str(commit)) if commit else ''}", "@type": "SoftwareApplication",
        "name": "wanimate", "softwareVersion": version,
    }  # fmt: skip
    more: list[dict[str, Any]] = [program]
    if commit:
        about = {
            "@id": f"#commit-{quote(str(commit))}",
            "@type": "PropertyValue",
            "propertyID": "commit",
            "value": commit,
        }
        program["identifier"] = _to(about["@id"])
        more.append(about)
    own = f"#{quote(story.name)}"
    checkpoint = _dict(record.get("checkpoint"))
    used = [_to(program["@id"])]
    if checkpoint:
        weights = {"@id": f"{own}-checkpoint", "@type": "SoftwareApplication", "name": str(checkpoint.get("name"))}
        hashes = [
            _fact(f"{own}-weights-{quote(file)}", file, told) for file, told in _dict(checkpoint.get("hashes")).items()
        ]
        weights["identifier"] = [_to(one["@id"]) for one in hashes]  # type: ignore[assignment]
        used.append(_to(weights["@id"]))
        more += [weights, *hashes]
    facts = [
        _fact(f"{own}-{name}", name, value)
        for name in ("seed", "mode", "frames", "fps")
        if (value := record.get(name)) is not None
    ]
    absent = [
        {"@id": f"{own}-absent-{number}", "@type": "CreativeWork", "name": f"{what} (not in this archive)"}
        | ({"identifier": hash} if hash else {})
        for number, (what, hash) in enumerate(story.absent, 1)
    ]
    prompt = _dict(record.get("settings")).get("prompt") or "The checkpoint's own prompt."
    action = {
        "@id": f"{own}-job", "@type": "CreateAction", "name": f"{record.get('mode', 'job')} of {story.name}",
        "description": str(prompt), "instrument": used, "agent": _to("#agent"), "endTime": str(record.get("written")),
        "object": [
            *(_to(reference(name)) for _, name in story.objects),
            *(_to(one["@id"]) for one in (*facts, *absent)),
        ],
        "result": _to(reference(story.result)),
    }  # fmt: skip
    return [action, *more, *facts, *absent]


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _fact(id: str, name: str, value: Any) -> dict[str, Any]:
    return {
        "@id": id,
        "@type": "PropertyValue",
        "name": name,
        "value": value if isinstance(value, (int, float)) else str(value),
    }
