"""C2PA: signs files, and reads what is signed. Nothing is asked of the network, but a time stamp where one is wanted."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wanimate.config import MarkSettings
from wanimate.errors import InputError, OutputError, one_line
from wanimate.provenance.about import TITLES, About, Source
from wanimate.provenance.certificates import Identity
from wanimate.provenance.forms import EMBEDS, OTHER, manifest_beside, media_type
from wanimate.provenance.manifest import definition, ingredient

_LARGEST = 64 * 2**20
"""Bytes of a manifest beside a file that is read."""


@dataclass(frozen=True)
class Signed:
    """What is signed in a file. state: "Trusted", "Valid" (but by nobody who is known here), "Invalid". failures: codes of what
    is wrong. manifests: by label, as the library tells them. beside: the manifest's own file, where it is one."""

    state: str
    active: str
    manifests: dict[str, Any]
    failures: tuple[str, ...] = ()
    results: dict[str, Any] = field(default_factory=dict)
    beside: Path | None = None

    def assertion(self, label: str) -> dict[str, Any] | None:
        """Of the active manifest; versions and numbers behind the label are passed over."""
        for one in self.manifests[self.active].get("assertions", []):
            if one.get("label") == label or str(one.get("label")).startswith((f"{label}.v", f"{label}__")):
                return one.get("data")
        return None


def sign(
    source: Path, target: Path, about: About, settings: MarkSettings, identity: Identity, watermarked: bool
) -> list[str]:  # fmt: skip
    """Sign `source`. `target`: the signed copy, or the manifest's file where the form embeds none.

    The sources of `about` become ingredients, and their own manifests are carried on. Returns what the user should be told.

    Raises:
        InputError: the library is not installed, or signing failed. OutputError: the file cannot be written.
    """
    c2pa = library()
    form = media_type(source)
    notices: list[str] = []
    before = [(one, _manifest_of(one, notices)) for one in about.sources]
    parents = [
        number for number, (one, manifest) in enumerate(before) if one.role == "finished" and manifest is not None
    ]
    again = bool(parents)
    if again:
        since = (step for one in about.sources[parents[-1] :] for step in one.steps)
        about = replace(about, steps=tuple(dict.fromkeys((*since, *about.steps))))
    used = [before[parents[-1]]] if again else [pair for pair in before if pair[0].role != "finished"]
    made = definition(about, settings, form, [one.role for one, _ in used], again, watermarked)
    try:
        signer = c2pa.Signer.from_info(
            c2pa.C2paSignerInfo(
                alg=identity.algorithm.encode(), sign_cert=identity.chain, private_key=identity.key,
                ta_url=settings.timestamp.encode() or None,
            )
        )  # fmt: skip
        with c2pa.Builder(made, context=_context(c2pa, ())) as builder:
            for one, manifest in used:
                _add(builder, one, ingredient(one.role, again, about), manifest)
            embeds = form in EMBEDS
            if not embeds:
                builder.set_no_embed()
            with open(source, "rb") as file, open(target, "w+b") if embeds else io.BytesIO() as signed:
                made_of = builder.sign(signer, form, file, signed)
            if not embeds:
                target.write_bytes(made_of)
        return notices
    except c2pa.C2paError as error:
        stamp = " Leave the time stamp out, or see to the network." if settings.timestamp else ""
        rule = f"it cannot be signed ({one_line(str(error))})"
        raise InputError("file", source, rule, f"See to certificate and file.{stamp}") from error
    except OSError as error:
        raise OutputError(
            "out", target, f"it cannot be written ({error.strerror or error})", "See to the disk."
        ) from error


def read(path: Path, anchors: Sequence[bytes] = ()) -> Signed | None:
    """What is signed in a file, or, where its form embeds nothing, in the manifest beside it; None where there is none.

    Raises:
        InputError: the library is not installed. ValueError: there is a manifest that cannot be read. The message is a phrase.
    """
    c2pa = library()
    form, beside = media_type(path), manifest_beside(path)
    context = _context(c2pa, anchors)
    if form in EMBEDS:
        return _read(c2pa, path, form, None, context)
    if beside == path or not beside.is_file():
        return None
    if beside.stat().st_size > _LARGEST:
        raise ValueError(f"{beside.name} is larger than {_LARGEST // 2**20} MB")
    return _read(c2pa, path, form, beside, context)


def library() -> Any:
    """The module `c2pa`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import c2pa
    except ImportError as error:
        remedy = "Install it: pip install 'wanimate[c2pa]'."
        raise InputError("marks.sign", True, "the library c2pa-python is not installed", remedy) from error
    return c2pa


def _context(c2pa: Any, anchors: Sequence[bytes]) -> Any:
    """Offline, and without small pictures of the inputs: they show people."""
    settings: dict[str, Any] = {
        "builder": {"thumbnail": {"enabled": False}},
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    if anchors:
        settings["trust"] = {"user_anchors": b"\n".join(anchors).decode("ascii", "ignore")}
    return c2pa.Context(c2pa.Settings.from_dict(settings))


def _read(c2pa: Any, path: Path, form: str, beside: Path | None, context: Any) -> Signed | None:
    try:
        with open(path, "rb") as file:
            manifest = None if beside is None else beside.read_bytes()
            reader = c2pa.Reader.try_create(form, file, manifest_data=manifest, context=context)
            if reader is None:
                return None
            with reader:
                said = json.loads(reader.json())
    except c2pa.C2paError as error:
        raise ValueError(one_line(str(error))) from error
    active = said.get("active_manifest")
    if active not in said.get("manifests", {}):
        raise ValueError("it has no active manifest")
    results = said.get("validation_results", {})
    failed = results.get("activeManifest", {}).get("failure", [])
    codes = tuple(dict.fromkeys(str(one.get("code")) for one in failed))
    return Signed(str(said.get("validation_state")), active, said["manifests"], codes, results, beside)


def _manifest_of(source: Source, notices: list[str]) -> Signed | None:
    """The manifest of an input; a damaged one counts as none, and is told."""
    try:
        return read(source.path)
    except ValueError as error:
        notices.append(f"the manifest of the {TITLES[source.role]} cannot be read and is not carried on ({error})")
        return None


def _add(builder: Any, one: Source, named: dict[str, str], signed: Signed | None) -> None:
    """An input as an ingredient. A manifest beside it is handed in with what was found out about it."""
    form = media_type(one.path)
    more: dict[str, Any] = {"format": form}
    if signed is not None and signed.beside is not None:
        place = f"{one.role}.c2pa"
        builder.add_resource(place, io.BytesIO(signed.beside.read_bytes()))
        told = {"active_manifest": signed.active, "validation_results": signed.results}
        more |= told | {"manifest_data": {"format": "application/c2pa", "identifier": place}}
    with open(one.path, "rb") as file:
        builder.add_ingredient(named | more, OTHER if signed is None else form, file)
