"""What is wrong with a picture or a clip, in the contract's codes: files are judged by content, people by our own detectors."""

from __future__ import annotations

import ast
import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from make_clips import make_clip, make_sound

import wanimate
from wanimate.config import PreprocessSettings
from wanimate.errors import CheckpointError, Fault, InputError, OutputError
from wanimate.media.probe import probe
from wanimate.media.video import iter_indices
from wanimate.preprocess.detect.registry import open_detector
from wanimate.preprocess.performer import nobody_found
from wanimate.preprocess.pose.keypoints import FACE
from wanimate.serve.checks import ContractLimits, Refused, check_clip, check_picture, refusal_of
from wanimate.types import Frame

DEMO = Path(wanimate.__file__).parent / "weights" / "embedded" / "demo"
WIDE = Path(__file__).parents[2] / "data" / "performer-wide.mp4"


def character(number: int) -> Frame:
    return np.asarray(Image.open(DEMO / f"character-{number}.png").convert("RGB"))


def saved(folder: Path, picture: Frame, format: str = "PNG", name: str = "picture") -> Path:
    path = folder / name
    Image.fromarray(picture).save(path, format)
    return path


def plain(width: int, height: int) -> Frame:
    return np.full((height, width, 3), 200, np.uint8)


def pasted(canvas: Frame, picture: Frame, share: float, left: int, top: int) -> Frame:
    """`picture` at a share of its size on a copy of `canvas`."""
    whole, part = Image.fromarray(canvas), Image.fromarray(picture)
    whole.paste(part.resize((round(part.width * share), round(part.height * share))), (left, top))
    return np.asarray(whole)


def code(refused: Refused | None) -> str | None:
    return refused and refused.code


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP"])
def test_pictures_of_the_contract_pass_whatever_their_name(tmp_path: Path, format: str) -> None:
    assert check_picture(saved(tmp_path, character(1), format), look=False) is None


def test_a_character_passes_the_look() -> None:
    assert check_picture(DEMO / "character-4.png") is None


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PPM", "JPEG2000"])
def test_other_pictures_are_refused_by_content(tmp_path: Path, format: str) -> None:
    path = saved(tmp_path, plain(300, 300), format, "picture.gif" if format == "GIF" else "picture.jpg")
    assert code(check_picture(path, look=False)) == "InvalidImage.FileFormat"


@pytest.mark.parametrize("data", [b"", b"GIF8", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(50)])
def test_what_is_no_picture_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    assert code(check_picture(path)) == "InvalidImage.FileFormat"


def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, character(2))
    path.write_bytes(path.read_bytes()[:9000])
    assert code(check_picture(path)) == "InvalidImage.FileFormat"


def test_a_missing_file_is_refused_and_its_path_is_not_told(tmp_path: Path) -> None:
    for refused in (check_picture(tmp_path / "none.png"), check_clip(tmp_path / "none.mp4")):
        assert refused is not None
        assert str(tmp_path) not in refused.message
        assert refused.message.startswith("input.")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((200, 600), None), ((600, 200), None), ((4096, 1366), None),
        ((199, 300), "InvalidImageResolution"), ((4097, 2000), "InvalidImageResolution"),
        ((200, 601), "InvalidImage.ImageSize"), ((4096, 1365), "InvalidImage.ImageSize"),
    ],
)  # fmt: skip
def test_sides_and_ratio_of_a_picture(tmp_path: Path, size: tuple[int, int], expected: str | None) -> None:
    assert code(check_picture(saved(tmp_path, plain(*size)), look=False)) == expected


def test_a_picture_of_too_many_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    path = saved(tmp_path, noise)
    limits = ContractLimits(picture_bytes=path.stat().st_size)
    assert check_picture(path, look=False, limits=limits) is None
    limits = ContractLimits(picture_bytes=path.stat().st_size - 1)
    assert code(check_picture(path, look=False, limits=limits)) == "InvalidFile.Size"
    with open(path, "ab") as file:
        file.truncate(5 * 2**20 + 1)
    assert code(check_picture(path, look=False)) == "InvalidFile.Size"


def test_a_picture_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    packed = io.BytesIO()
    Image.new("1", (9000, 9000)).save(packed, "PNG")
    path = tmp_path / "bomb.png"
    path.write_bytes(packed.getvalue())
    assert code(check_picture(path)) == "InvalidImageResolution"


def test_an_empty_room_shows_nobody(tmp_path: Path) -> None:
    room = plain(400, 300)
    room[220:] = 120
    refused = check_picture(saved(tmp_path, room))
    assert refused == Refused(
        "InvalidImage.NoHuman", "The input image has no human body. Please upload other image with single person."
    )
    assert check_picture(saved(tmp_path, room), look=False) is None


@pytest.mark.parametrize(("left", "right"), [(1, 2), (2, 1), (3, 2)])
def test_two_people_are_refused(tmp_path: Path, left: int, right: int) -> None:
    both = np.concatenate([character(left), character(right)], axis=1)
    refused = check_picture(saved(tmp_path, both))
    assert refused is not None
    assert refused.code == "InvalidImage.MultiHuman"
    assert "2 people" in refused.message


def test_a_small_bystander_passes_and_a_larger_one_does_not(tmp_path: Path) -> None:
    room = np.concatenate([np.full((900, 900, 3), character(1)[2, 2], np.uint8), plain(400, 900)], axis=1)
    scene = pasted(room, character(1), 2.2, 20, 40)
    assert check_picture(saved(tmp_path, pasted(scene, character(2), 0.9, 920, 200))) is None
    refused = check_picture(saved(tmp_path, pasted(scene, character(2), 1.25, 880, 200)))
    assert code(refused) == "InvalidImage.MultiHuman"


def test_a_covered_face_is_refused(tmp_path: Path) -> None:
    (picture,) = (frame.copy() for frame in iter_indices(probe(WIDE), [0]))
    (person,) = open_detector(PreprocessSettings()).candidates(picture)
    (left, top), (right, bottom) = person.keypoints[FACE, :2].min(axis=0), person.keypoints[FACE, :2].max(axis=0)
    picture[int(top) - 20 : int(bottom) + 10, int(left) - 5 : int(right) + 5] = 120
    assert code(check_picture(saved(tmp_path, picture))) == "InvalidImage.NoHumanFace"


def test_a_tiny_person_is_refused(tmp_path: Path) -> None:
    room = np.full((1000, 1000, 3), character(1)[2, 2], np.uint8)
    assert code(check_picture(saved(tmp_path, pasted(room, character(1), 0.5, 400, 400)))) == "InvalidFile.Content"
    assert check_picture(saved(tmp_path, pasted(room, character(1), 0.9, 300, 300))) is None


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.avi"])
def test_clips_of_the_contract_pass(tmp_path: Path, name: str) -> None:
    assert check_clip(make_clip(tmp_path / name, 10, 5, (320, 240))) is None


def test_other_containers_are_refused_by_content(tmp_path: Path) -> None:
    webm = make_clip(tmp_path / "clip.mp4", 10, 5, (320, 240), container="matroska")
    assert code(check_clip(webm)) == "InvalidVideo.FileFormat"
    for picture in ("PNG", "GIF", "WEBP"):
        assert code(check_clip(saved(tmp_path, plain(300, 300), picture))) == "InvalidVideo.FileFormat"
    assert code(check_clip(make_sound(tmp_path / "sound.m4a"))) == "InvalidVideo.FileFormat"
    text = tmp_path / "text.mp4"
    text.write_text("data:video/mp4;base64,AAAA")
    refused = check_clip(text)
    assert refused == Refused("InvalidVideo.FileFormat", "Invalid video type. Only mp4/mov/avi is supported.")


def test_a_clip_that_is_cut_off_cannot_be_opened(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 10, 5, (320, 240))
    whole = clip.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:64], b""):
        clip.write_bytes(part)
        assert code(check_clip(clip)) == "InvalidFile.Openerror"


@pytest.mark.parametrize(
    ("frames", "rate", "size", "expected"),
    [
        (60, 2, (320, 240), None), (10, 5, (200, 600), None), (10, 5, (2048, 700), None),
        (9, 5, (320, 240), "InvalidFile.Duration"), (61, 2, (320, 240), "InvalidFile.Duration"),
        (10, 5, (198, 240), "InvalidFile.Resolution"), (10, 5, (2050, 700), "InvalidFile.Resolution"),
        (10, 5, (602, 200), "InvalidFile.AspectRatio"),
    ],
)  # fmt: skip
def test_length_sides_and_ratio_of_a_clip(
    tmp_path: Path, frames: int, rate: int, size: tuple[int, int], expected: str | None
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames, rate, size)
    assert code(check_clip(clip)) == expected
    if expected is None:
        probe(clip, PreprocessSettings(limits=ContractLimits().of_job()).limits)


def test_a_clip_of_too_many_bytes(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 10, 5, (320, 240))
    limits = ContractLimits(clip_bytes=clip.stat().st_size - 1)
    assert code(check_clip(clip, limits)) == "InvalidFile.Size"


def test_errors_of_a_job_have_codes(tmp_path: Path) -> None:
    clip = probe(make_clip(tmp_path / "clip.mp4", 10, 5, (320, 240)))
    expected = {
        "InvalidFile.NoHuman": nobody_found(clip, 10),
        "InvalidFile.Duration": InputError("video", clip.path, "31 s long", "Cut it.", Fault.DURATION),
        "InvalidParameter": InputError("preprocess.person", "7", "2 found", "Give another"),
        "InternalError": OutputError("out", tmp_path, "the disk is full", "Free some space."),
    }
    assert {refusal_of(error).code for error in expected.values()} == set(expected)
    for wanted, error in expected.items():
        assert refusal_of(error).code == wanted
        assert str(tmp_path) not in refusal_of(error).message
    assert (
        refusal_of(CheckpointError("checkpoint", tmp_path, "keys are missing", "Load it again.")).code
        == "InternalError"
    )
    assert refusal_of(expected["InvalidParameter"]).message == "person: 2 found. Give another."


def test_faults_go_with_an_error_to_another_process() -> None:
    error = InputError("video", "a.mp4", "cut off", "Export it again.", Fault.UNREADABLE)
    again = pickle.loads(pickle.dumps(error))
    assert (again.fault, str(again)) == (Fault.UNREADABLE, str(error))


def test_every_error_of_a_media_file_says_what_is_wrong() -> None:
    """Those that are made for any field; a setting's own have none, and those of models (`wheels`) are settings' own."""
    modules = set((Path(wanimate.__file__).parent / "media").glob("*.py"))
    for module in (one for one in modules if one.stem != "wheels"):
        for node in ast.walk(ast.parse(module.read_text())):
            made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "InputError"
            if made and not isinstance(node.args[0], ast.Constant):
                assert len(node.args) == 5, f"{module.name}, line {node.lineno}"
