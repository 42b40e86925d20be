"""JSON of strangers: a value, or a phrase about what is wrong with the text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wanimate.media.json_file import MAX_DEPTH, parse_json, read_json


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested deeper than 32"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "nested deeper than 32"),
        ('{"a": NaN}', "not finite"),
        ("[-Infinity]", "not finite"),
        ("[1e999]", "not finite"),
        ("9" * 5000, "more than 19 digits"),
        ('"\\ud800"', "not text in UTF-8"),
        ('{"\\udfff": 1}', "not text in UTF-8"),
        (b"\xff\xfe{}", "not text in UTF-8"),
        ('{"a": }', "not JSON: line 1, column 7"),
        ("", "not JSON: line 1, column 1"),
    ],
)
def test_what_is_refused(text: str | bytes, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as caught:
        parse_json(text)
    assert "set_int_max_str_digits" not in str(caught.value)


def test_what_is_accepted() -> None:
    deepest = "[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1)
    assert parse_json(b'{"a": [1, -2.5, null, "\xc3\xa9", true]}') == {"a": [1, -2.5, None, "é", True]}
    assert parse_json(deepest) is not None


def test_files_that_are_too_large_or_none(tmp_path: Path) -> None:
    (tmp_path / "large.json").write_text("[" + "0," * 1000 + "0]")
    with pytest.raises(ValueError, match="larger than"):
        read_json(tmp_path / "large.json", 1000)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="not a file"):
            read_json(tmp_path / name)
    with pytest.raises(ValueError, match="null byte"):
        read_json(tmp_path / "a\0b")
