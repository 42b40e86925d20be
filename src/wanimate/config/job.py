"""A job: one picture, one performance, one result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from wanimate.config.base import FILES, RESULT, Option, Settings, unknown
from wanimate.config.generate import GenerateSettings
from wanimate.config.marks import MarkSettings
from wanimate.config.output import OutputSettings
from wanimate.config.preprocess import PreprocessSettings
from wanimate.config.values import File
from wanimate.errors import InputError, setting

Mode = Literal["animation", "replacement"]
LIBRARY = "library:"
"""What a clip or a picture begins with that names an entry of the library: `library:wave-03`."""
SCHEMA = 1
"""Version of a job's form as JSON. A newer one is refused."""


class Job(Settings):
    """One picture, one performance, one result.

    `model_dump(mode="json")` gives what JSON can hold, `Job.model_validate` takes it back, and `Job.model_json_schema()`
    describes it.
    """

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA)] = SCHEMA
    image: Annotated[
        File,
        Option(
            FILES,
            "Picture of the character: PNG, JPEG, WebP ... Head and shoulders or more should show. Or library:NAME.",
        ),
    ]
    video: Annotated[
        File,
        Option(
            FILES,
            "Clip of the performer: mp4, mov, webm, mkv or gif; 2-30 s, short side over 200 px, aspect 1:3 to 3:1, up to "
            "200 MB. Or library:NAME.",
        ),
    ]
    out: Annotated[
        File,
        Option(
            FILES,
            f"Result: a .mp4, .mov or .mkv file, or a folder with {setting('output.codec')} png. The record of the job, "
            "out.json, is put beside it.",
        ),
    ]
    mode: Annotated[
        Mode,
        Option(FILES, "The job: the character in its own picture (animation), or in the clip's scene (replacement)."),
    ] = "animation"
    preprocess: PreprocessSettings = PreprocessSettings()
    generate: GenerateSettings = GenerateSettings()
    output: OutputSettings = OutputSettings()
    marks: MarkSettings = MarkSettings()
    keep_guides: Annotated[
        File | None,
        Option(RESULT, "Keep the guides (skeleton, face crops) in this folder.", shown="thrown away", metavar="DIR"),
    ] = None

    @classmethod
    def of(cls, image: Path | str, video: Path | str, out: Path | str, **settings: Any) -> Job:
        """A job from flat names: each setting goes to the part that has a field of that name.

        Raises:
            InputError: a name is unknown, or a value breaks its rule.
        """
        parts = {name: part for name in cls.model_fields if (part := cls.nested(name)) is not None}
        own: dict[str, Any] = {"image": image, "video": video, "out": out}
        flat: dict[str, dict[str, Any]] = {name: {} for name in parts}
        for key, value in settings.items():
            owners = [name for name, part in parts.items() if key in part.model_fields]
            if key in cls.model_fields:
                own[key] = value
            elif not owners:
                raise unknown(cls, key, value, [cls, *parts.values()])
            for owner in owners:
                flat[owner][key] = value
        for name, values in flat.items():
            if values and name in own:
                rule = f"{', '.join(values)} belongs to it, and is given as well"
                raise InputError(name, own[name], rule, "Give the part, or its settings one by one.")
            own.setdefault(name, parts[name](**values))
        return cls(**own)
