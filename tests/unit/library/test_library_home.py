"""`library:NAME` in jobs of the command line and of Python, folders in and out, the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consents_made import consent
from making import write_clip, write_picture
from typer.testing import CliRunner

from wanimate.api import Animator
from wanimate.cli.main import app
from wanimate.config import Job, PreprocessSettings
from wanimate.errors import InputError
from wanimate.finish.record import Hashes
from wanimate.jobs.resume import guides_key
from wanimate.library import places
from wanimate.library.bundle import LIST, add_file, add_folder, export
from wanimate.library.entries import About, Library, Wanted
from wanimate.library.home import named_files, with_files
from wanimate.media.files import sha256
from wanimate.serve.consents import Consents

Told = Callable[..., dict[str, Any]]


@pytest.fixture
def told() -> Told:
    """What a command of `wanimate library` says last with `--json`; the whole for an error."""

    def run(*words: str | Path, code: int = 0) -> dict[str, Any]:
        result = CliRunner().invoke(app, ["library", *map(str, words), "--json"])
        assert result.exit_code == code, result.output
        last: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        return last

    return run


def test_a_job_names_a_clip_and_a_character(library: Library, tmp_path: Path) -> None:
    clip, hero = write_clip(tmp_path / "wave.mp4", 10), write_picture(tmp_path / "hero.png")
    entry = add_file(library, "", clip, About(name="wave-03"))
    add_file(library, "ann", hero)
    job = with_files(Job(image="library:hero", video="library:wave-03", out="out.mp4"))  # type: ignore[arg-type]
    assert job.video.read_bytes() == clip.read_bytes()
    assert job.image.read_bytes() == hero.read_bytes()
    assert job.preprocess.performers == library.storage.local_path(places.found_in(entry.sha256))
    chosen = PreprocessSettings(performers=tmp_path / "own")
    assert named_files(None, Path("library:wave-03"), chosen)[2].performers == tmp_path / "own"


def test_python_takes_the_names_too(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_file(library, "", write_clip(tmp_path / "wave.mp4", 10))
    seen: list[Job] = []
    monkeypatch.setattr("wanimate.api.jobs.run", lambda _engine, job, _cancel: iter([seen.append(job)]))
    picture = write_picture(tmp_path / "hero.png")
    with Animator() as animator:
        list(animator.run(Job(image=picture, video="library:wave", out=tmp_path / "o.mp4")))  # type: ignore[arg-type]
        list(animator.run(Job(image=picture, video=tmp_path / "wave.mp4", out=tmp_path / "o.mp4")))
    assert seen[0].video != Path("library:wave")
    assert seen[0].video.is_file()
    assert seen[1].video == tmp_path / "wave.mp4"
    assert seen[1].preprocess.performers is None


@pytest.mark.parametrize(
    ("image", "video", "field", "rule"),
    [
        ("library:hero", "library:none", "video", "no such entry"), ("library:wave", "library:wave", "image", "is a clip"),
        ("library:hero", "library:hero", "video", "is a character"), ("library:hero", "library:old", "video", "is retired"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_names_its_field(
    library: Library, tmp_path: Path, image: str, video: str, field: str, rule: str
) -> None:
    add_file(library, "", write_clip(tmp_path / "wave.mp4", 10))
    add_file(library, "", write_picture(tmp_path / "hero.png"))
    library.decide(add_file(library, "", write_clip(tmp_path / "old.mp4", 12)).id, "retired", "mia")
    with pytest.raises(InputError, match=rule) as told:
        with_files(Job(image=image, video=video, out="out.mp4"))  # type: ignore[arg-type]
    assert told.value.field == field


def test_the_services_policy_holds_for_commands(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = add_file(library, "", write_clip(tmp_path / "wave.mp4", 10), About(licence="CC0-1.0"))
    monkeypatch.setenv("WANIMATE_SERVE_CLIPS", "approved")
    with pytest.raises(InputError, match="only what is approved"):
        named_files(None, Path("library:wave"), PreprocessSettings())
    library.decide(entry.id, "approved", "mia")
    assert named_files(None, Path("library:wave"), PreprocessSettings())[1].is_file()


def test_files_of_an_object_store_come_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wanimate.library.home import home_settings, open_library

    monkeypatch.setenv("WANIMATE_SERVE_STORAGE", "memory://library-home")
    library = open_library(home_settings())
    clip = write_clip(tmp_path / "wave.mp4", 10)
    add_file(library, "", clip)
    library.database.close()
    _, found, settings = named_files(None, Path("library:wave"), PreprocessSettings())
    assert found.read_bytes() == clip.read_bytes()
    assert found.is_relative_to(tmp_path / "cache")
    assert settings.performers is not None
    assert settings.performers.is_relative_to(tmp_path / "cache")


def test_a_folder_goes_out_and_comes_in_again(library: Library, tmp_path: Path) -> None:
    said = About("wave-03", "Große Welle", "dance-loop", ["slow"], "CC0-1.0", ["urn:consent:1"])
    clip = write_clip(tmp_path / "wave.mp4", 10)
    Consents(library.database).add(consent(asset=sha256(clip)), "", "mia")
    entry = add_file(library, "", clip, said)
    add_file(library, "", write_picture(tmp_path / "hero.png"))
    library.decide(entry.id, "approved", "mia")
    out = tmp_path / "out"
    export(library, library.search(Wanted(), None).entries, out)
    assert {path.name for path in out.iterdir()} == {"wave-03.mp4", "hero.png", LIST}
    (out / "notes.txt").write_text("no clip")
    (out / "sub").mkdir()
    (out / "sub" / "bad.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom and no more")
    found = list(add_folder(library, "ann", out, About(tags=["import"])))
    assert [one.path.name for one in found if one.entry is None] == ["hero.png", "bad.mp4", "wave-03.mp4"]
    library.remove(entry.id)
    (again,) = (one.entry for one in add_folder(library, "ann", out, About(tags=["import"])) if one.entry is not None)
    assert (again.name, again.title, again.kind, again.licence) == ("wave-03", "Große Welle", "dance-loop", "CC0-1.0")
    assert (again.tags, again.consent_ids, again.status) == (["import", "slow"], ["urn:consent:1"], "proposed")
    with pytest.raises(InputError, match="something in it"):
        export(library, [again], out)
    with pytest.raises(InputError, match="no such folder"):
        list(add_folder(library, "", tmp_path / "nowhere"))


def test_a_list_from_a_stranger_says_nothing_that_breaks(library: Library, tmp_path: Path) -> None:
    write_clip(tmp_path / "wave.mp4", 10)
    for wrong in ({"tags": 7}, {"name": "../x"}, {"title": 3}):
        entries: Any = [{"file": "wave.mp4", **wrong}]
        (tmp_path / LIST).write_text(json.dumps({"format": "wanimate-library", "entries": entries}))
        (one,) = add_folder(library, "", tmp_path)
        assert one.entry is None
    for entries in ("no list", [3, {"file": []}], None):
        (tmp_path / LIST).write_text(json.dumps({"format": "wanimate-library", "entries": entries}))
        (one,) = add_folder(library, "", tmp_path)
        assert one.entry is not None
        library.remove(one.entry.id)


def test_the_commands_from_adding_to_removing(told: Told, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "wave.mp4", 30, 12)
    added = told("add", clip, "--name", "wave-03", "--kind", "dance-loop", "--tag", "Slow", "--tag", "arm")
    assert (added["name"], added["tags"], added["status"], added["loopable"]) == (
        "wave-03",
        ["arm", "slow"],
        "proposed",
        True,
    )
    assert told("approve", "wave-03", code=2)["field"] == "licence"
    assert told("change", "wave-03", "--licence", "cc-by-4.0", "--title", "Wave")["licence"] == "CC-BY-4.0"
    assert told("approve", "wave-03", "--by", "mia")["approved_by"] == "mia"
    takes = tmp_path / "takes"
    takes.mkdir()
    write_picture(takes / "hero.png")
    (takes / "again.mp4").write_bytes(clip.read_bytes())
    assert told("import", takes, "--tag", "more") | {"event": ""} == {"event": "", "added": 1, "left_out": 1}
    found = told("search", "wav", "--status", "approved", "--tag", "slow")
    assert ([entry["name"] for entry in found["entries"]], found["total"]) == (["wave-03"], 1)
    assert told("search", "--shelf", "character")["total"] == 1
    assert told("search", "--status", "gone", code=2)["field"] == "status"
    assert told("show", "library:wave-03")["title"] == "Wave"
    assert told("show", "none", code=2)["field"] == "entry"
    assert told("export", tmp_path / "out", "--status", "approved")["entries"] == ["wave-03"]
    assert told("retire", added["id"])["status"] == "retired"
    assert told("remove", "wave-03")["removed"] == "wave-03"
    assert told("search")["total"] == 1


def test_an_owners_library_is_apart_from_the_houses(told: Told, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "wave.mp4", 10)
    told("add", clip, "--owner", "ann")
    assert told("search", "--owner", "bob")["total"] == 0
    told("add", clip, "--owner", "bob", "--name", "mine")
    assert [entry["name"] for entry in told("search", "--owner", "bob")["entries"]] == ["mine"]
    assert told("search")["total"] == 2


def test_words_are_for_people(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "wave.mp4", 30, 12)

    def said(*words: str) -> str:
        result = CliRunner().invoke(app, ["library", *words])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "nothing in the library matches" in said("search")
    assert said("add", str(clip)).startswith("wave: other, 1.20 s, 96x64, loop from frame")
    assert "wave" in said("search")
    shown = said("show", "wave")
    assert "the house" in shown
    assert "closes within" in shown


def test_what_is_kept_of_performers_does_not_make_another_job() -> None:
    """A job that was stopped goes on whether the library is used or not."""
    with Hashes() as hashes:
        keys = [
            guides_key("animation", PreprocessSettings(performers=place), 4096, {}, hashes)
            for place in (None, Path("somewhere"))
        ]
    assert keys[0] == keys[1]
