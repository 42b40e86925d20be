"""Entries: what is said of them, who sees them, what an approval needs, files that are shared."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from consents_made import consent
from making import write_clip, write_picture

from wanimate.errors import InputError
from wanimate.library import places
from wanimate.library.bundle import add_file
from wanimate.library.entries import About, File, Library, Wanted, check_use
from wanimate.library.names import checked_licence, checked_tags, name_of, named
from wanimate.serve.consents import Consents
from wanimate.serve.storage import StorageAway
from wanimate.serve.tables import LibraryEntry


def put(library: Library, name: str, owner: str = "", shelf: Any = "clip", **said: Any) -> LibraryEntry:
    """An entry of a file that nobody has looked into."""
    content = name.encode().hex().ljust(64, "0")[:64]
    file = File(shelf, f"{name}.mp4", ".mp4", content, 4, [b"clip"])
    return library.add(owner, file, About(name=name, **said), {"width": 4, "height": 4})


def found(library: Library, owner: str | None = None, **wanted: Any) -> list[str]:
    return [entry.name for entry in library.search(Wanted(**wanted), owner).entries]


def test_a_clip_is_looked_into(library: Library, tmp_path: Path) -> None:
    entry = add_file(library, "", write_clip(tmp_path / "Große Welle_03.mp4"))
    told = (entry.name, entry.title, entry.kind, entry.status)
    assert told == ("grosse-welle-03", "Große Welle_03", "other", "proposed")
    assert (entry.width, entry.height, entry.fps, entry.people) == (96, 64, "25", 1)
    assert entry.seconds == pytest.approx(2.0)
    assert entry.loop is not None
    assert (entry.loop["stop"] - entry.loop["start"]) % 25 == 0
    assert entry.camera is None
    for name in (places.PREVIEW, places.POSTER):
        assert library.storage.size(places.beside(entry.sha256, name)) > 100


def test_a_preview_is_small_silent_and_short(library: Library, tmp_path: Path) -> None:
    from wanimate.media.probe import probe

    entry = add_file(library, "", write_clip(tmp_path / "wave.mp4", frames=60, period=20))
    path = library.storage.local_path(places.beside(entry.sha256, places.PREVIEW))
    assert path is not None
    clip = probe(path, None)
    assert max(clip.width, clip.height) <= 320
    assert clip.fps <= 15
    assert clip.duration <= 6.1
    assert clip.audio == ()


def test_a_picture_is_a_character(library: Library, tmp_path: Path) -> None:
    entry = add_file(library, "", write_picture(tmp_path / "hero.png"))
    assert (entry.shelf, entry.kind, entry.loop, entry.seconds) == ("character", None, None, None)
    assert not library.storage.exists(places.beside(entry.sha256, places.PREVIEW))
    with pytest.raises(InputError, match="only clips have one"):
        library.change(entry.id, About(kind="presenter"))


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x00\x00\x00\x18ftypisom and no more"])
def test_what_is_neither_stays_out(library: Library, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.mp4"
    path.write_bytes(content)
    with pytest.raises(InputError):
        add_file(library, "", path)
    assert found(library) == []
    assert library.storage.list() == []


def test_the_same_file_is_added_once(library: Library, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "wave.mp4")
    add_file(library, "ann", path)
    with pytest.raises(InputError, match="as wave"):
        add_file(library, "ann", path)
    add_file(library, "bob", path)  # bob knows nothing of ann's


def test_names_that_are_not_given_make_room_for_each_other(library: Library, tmp_path: Path) -> None:
    for folder, tint in (("a", 0), ("b", 30), ("c", 60)):
        (tmp_path / folder).mkdir()
        add_file(library, "", write_clip(tmp_path / folder / "wave.mp4", 10, tint=tint))
    assert set(found(library)) == {"wave", "wave-2", "wave-3"}
    with pytest.raises(InputError, match="taken"):
        add_file(library, "", write_picture(tmp_path / "x.png"), About(name="wave"))


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("name", {"name": "Wave 3"}), ("name", {"name": ""}), ("name", {"name": "x" * 64}), ("title", {"title": "  "}),
        ("kind", {"kind": "song"}), ("tags", {"tags": ["a,b"]}), ("tags", {"tags": [str(i) for i in range(21)]}),
        ("licence", {"licence": "mine"}), ("consent_ids", {"consent_ids": ["x" * 101]}),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_field(field: str, said: dict[str, Any]) -> None:
    with pytest.raises(InputError) as told:
        About(**said)
    assert told.value.field == field


def test_values_are_brought_into_one_form() -> None:
    assert checked_tags([" Slow", "slow", "Ünder "]) == ["slow", "ünder"]
    assert checked_licence("cc-by-4.0") == "CC-BY-4.0"
    assert checked_licence("LicenseRef-house") == "LicenseRef-house"
    assert checked_licence(" ") is None
    assert name_of("Été_04 (final)") == "ete-04-final"
    assert name_of("波") == "entry"
    assert (named("library:wave-03"), named("wave-03.mp4")) == ("wave-03", None)


def test_an_owners_entries_are_not_seen_by_others(library: Library) -> None:
    put(library, "shared")
    put(library, "secret", "ann", tags=["mystery"])
    assert found(library, "ann") == ["secret", "shared"]
    assert found(library, "bob") == ["shared"]
    assert found(library, "bob", search="secret") == []
    assert library.tags("", "bob") == []
    assert library.find("secret", "bob") is None
    assert set(found(library)) == {"secret", "shared"}


def test_an_own_entry_goes_before_the_houses(library: Library) -> None:
    house, own = put(library, "wave"), library.add("ann", _other(), About(name="wave"))
    for owner, expected in (("ann", own), ("bob", house), (None, house)):
        entry = library.find("wave", owner)
        assert entry is not None
        assert entry.id == expected.id


def _other() -> File:
    return File("clip", "wave.mp4", ".mp4", "f" * 64, 4, [b"clip"])


def test_an_approval_needs_a_licence_and_ends_with_it(library: Library) -> None:
    entry = put(library, "wave")
    with pytest.raises(InputError) as told:
        library.decide(entry.id, "approved", "mia")
    assert told.value.field == "licence"
    library.change(entry.id, About(licence="CC0-1.0"))
    approved = library.decide(entry.id, "approved", "mia")
    assert (approved.status, approved.approved_by) == ("approved", "mia")
    assert approved.approved_at is not None
    assert library.change(entry.id, About(tags=["slow"], title="Wave")).status == "approved"
    assert library.change(entry.id, About(licence="CC-BY-4.0"), decides=True).status == "approved"
    Consents(library.database).add(consent(asset=entry.sha256), "", "mia")
    again = library.change(entry.id, About(consent_ids=["urn:consent:1"]))
    assert (again.status, again.approved_by, again.approved_at) == ("proposed", None, None)
    assert library.decide(entry.id, "retired", "mia").status == "retired"


def test_what_nobody_could_look_into_is_not_approved(library: Library) -> None:
    entry = library.add("", _other(), About(name="wave", licence="CC0-1.0"))
    with pytest.raises(InputError, match="nobody has looked"):
        library.decide(entry.id, "approved", "mia")


@pytest.mark.parametrize(
    ("status", "approved_only", "field", "rule"),
    [
        ("proposed", False, "video", None), ("proposed", True, "video", "only what is approved"),
        ("approved", True, "video", None), ("retired", False, "video", "retired"), ("approved", False, "image", "is a clip"),
    ],
)  # fmt: skip
def test_who_may_be_used(library: Library, status: Any, approved_only: bool, field: str, rule: str | None) -> None:
    entry = put(library, "wave", licence="CC0-1.0")
    if status != "proposed":
        entry = library.decide(entry.id, status, "mia")
    if rule is None:
        assert check_use(entry, "wave", field, approved_only) is entry
        return
    with pytest.raises(InputError, match=rule) as told:
        check_use(entry, "wave", field, approved_only)
    assert told.value.field == field


def test_files_stay_as_long_as_somebody_has_them(library: Library, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "wave.mp4", 10)
    ann, bob = add_file(library, "ann", path), add_file(library, "bob", path)
    library.remove(ann.id)
    assert library.storage.exists(places.file_of(bob.sha256, bob.suffix))
    library.remove(bob.id)
    assert library.storage.list() == []
    assert library.find("wave", None) is None


@pytest.mark.parametrize("full_text", [True, False])
def test_words_are_found_by_their_beginnings(library: Library, full_text: bool) -> None:
    other = Library(library.database, library.storage, full_text)
    put(other, "wave-03", title="Große Welle", kind="dance-loop", tags=["slow", "arm"])
    put(other, "talk", title="The wave of talk_shows", kind="presenter")
    put(other, "nod", title="100% yes", shelf="clip", kind="expression")
    for search, expected in {
        "wav": {"wave-03", "talk"}, "WAVE slo": {"wave-03"}, "grosse": {"wave-03"}, "welle": {"wave-03"}, "03": {"wave-03"},
        "shows": {"talk"}, "dance": {"wave-03"}, "ave": set(), "%": set(), '"': set(), "wave OR nod": set(), "100": {"nod"},
        "": {"wave-03", "talk", "nod"}, "*": set(), "nod)": {"nod"},
    }.items():  # fmt: skip
        assert set(found(other, search=search)) == expected, search
    assert found(other, tags=("slow",)) == ["wave-03"]
    assert found(other, tags=("slow", "quick")) == []
    assert found(other, tags=("lo",)) == []
    assert found(other, kind="presenter", search="wave") == ["talk"]
    other.change(other.search(Wanted(search="nod"), None).entries[0].id, About(title="No"))
    assert found(other, search="yes") == []
    assert other.tags("clip", None) == [("arm", 1), ("slow", 1)]


def test_what_a_process_without_full_text_search_has_added_is_found(library: Library) -> None:
    plain = Library(library.database, library.storage, full_text=False)
    put(plain, "wave")
    assert found(Library(library.database, library.storage), search="wave") == ["wave"]


def test_without_fts5_search_still_works(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite says it where the extension is not built in."""
    monkeypatch.setattr("wanimate.library.search._PROBE", "CREATE VIRTUAL TABLE temp.library_probe USING fts9(words)")
    plain = Library(library.database, library.storage)
    assert not plain.index.full_text
    put(plain, "wave")
    assert found(plain, search="wav") == ["wave"]


def test_pages_of_thousands_come_quickly(library: Library) -> None:
    with library.database.write() as session:
        rows: list[dict[str, Any]] = [
            {
                "id": f"lib_{i}", "owner": "", "shelf": "clip", "name": f"clip-{i}", "title": f"Clip {i}",
                "tags": [f"t{i % 7}"], "words": f"clip {i} t{i % 7}", "sha256": f"{i:064x}", "suffix": ".mp4", "size": 1,
                "consent_ids": [],
                "status": "proposed", "created": i,
            }
            for i in range(5000)
        ]  # fmt: skip
        session.execute(sa.insert(LibraryEntry), rows)
    large = Library(library.database, library.storage)
    began = time.process_time()
    page = large.search(Wanted(search="cli t3", tags=("t3",), offset=24, limit=24), None)
    assert time.process_time() - began < 0.5
    assert (len(page.entries), page.total) == (24, 714)


def test_a_file_that_cannot_be_stored_leaves_no_entry(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> int:
        raise StorageAway("The storage cannot be used: the disk is full.")

    monkeypatch.setattr(library.storage, "put", away)
    with pytest.raises(StorageAway):
        put(library, "wave")
    assert found(library) == []
