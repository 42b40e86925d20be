"""Messages that hold words of strangers' files are one line of letters."""

from __future__ import annotations

import pytest

from wanimate.errors import InputError, is_fault, setting


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("a\nb", "a\\nb"), ("\x1b[2J", "\\x1b[2J"), ("\u202egpj", "\\u202egpj"), ("\x9b31m", "\\x9b31m"), ("\udc80", "\\udc80"),
        ("é 视频", "é 视频"),
    ],
)  # fmt: skip
def test_words_that_do_something_are_shown_as_letters(word: str, shown: str) -> None:
    error = InputError("guides", word, f"{word} is wrong", "Run it again")
    assert str(error) == f"guides = {shown}: {shown} is wrong. Run it again."
    assert str(error).encode()


def test_a_long_word_is_cut_and_marks_of_settings_stay() -> None:
    error = InputError("guides", "x" * 10**6, f"see {setting('preprocess.area')}", "Run it again")
    assert len(str(error)) < 3000
    assert "see area. Run" in str(error)


def test_faults_of_libraries_and_the_wish_to_stop() -> None:
    assert is_fault(RuntimeError())
    assert is_fault(BaseException("a panic"))
    assert not is_fault(KeyboardInterrupt())
