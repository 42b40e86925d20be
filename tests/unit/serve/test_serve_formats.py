"""A request may choose any format, and names no file of the server."""

from __future__ import annotations

from typing import Any

import pytest

from wanimate.serve.errors import ServiceError
from wanimate.serve.settings import ServeSettings
from wanimate.serve.submission import Submission


def asked(**output: Any) -> Submission:
    return Submission.model_construct(output=output, tier=None)


def test_formats_of_a_request() -> None:
    settings = asked(
        codec="prores-4444", alpha="straight", timecode="01:00:00:00", burn_in=["name", "frame"]
    ).output_settings(ServeSettings())
    assert (settings.codec, settings.alpha, settings.burn_in) == ("prores-4444", "straight", ("name", "frame"))


@pytest.mark.parametrize(("output", "rule"), [
    ({"matte": "/etc/passwd"}, r"output\.matte: a request cannot set it"),
    ({"codec": "h264", "alpha": "straight"}, "h264 holds no alpha"),
])  # fmt: skip
def test_what_a_request_may_not_say(output: dict[str, Any], rule: str) -> None:
    with pytest.raises(ServiceError, match=rule) as caught:
        asked(**output).output_settings(ServeSettings())
    assert caught.value.status == 400
