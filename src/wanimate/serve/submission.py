"""What a job is to the service: one form for every face, checked as a whole before a row is stored.

Paths never come from a request: checkpoints and LoRAs are named, files are uploads or addresses.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, model_validator

from wanimate.config import GenerateSettings, OutputSettings, PreprocessSettings
from wanimate.config.base import Settings
from wanimate.errors import InputError
from wanimate.serve.addresses import parse_url
from wanimate.serve.errors import of_input, wrong
from wanimate.serve.settings import ServeSettings

_Group = TypeVar("_Group", bound=Settings)
Kind = Literal["animate", "preprocess", "generate", "redraw", "finish", "people", "check", "relight", "library"]
"""The whole job; its guides alone; its frames from the guides of another job; another job with one segment made anew;
another job's frames brought to a file anew, with an output of its own; a numbered picture of everybody in the clip; what a job
would be told of its inputs; one moment with and without relighting; a look into a file of the library."""
FROM_SEGMENTS = ("redraw", "finish")
"""Kinds that begin with the segments of another job."""
GENERATED_ONLY = ("generate", *FROM_SEGMENTS)
"""Kinds whose guides are there."""
LOOKS = ("people", "check", "library")
"""Kinds that make nothing."""
PREPARED_ONLY = ("preprocess", *LOOKS)
"""Kinds that are done once a processor has done its part."""
ASIDE = (*LOOKS, "relight")
"""Kinds that lists leave out: they are asked for on the way to a job."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
OWN_BY_SERVER = {
    PreprocessSettings: ("models", "mask", "sam2", "mask_debug", "limits", "performers"),
    GenerateSettings: ("lora", "redraw"),
    OutputSettings: ("overwrite", "fresh", "keep_segments", "matte", "upscale_network", "quarantine"),
}
"""Fields that name files of the server, or that it decides."""


def _schema(group: type[Settings]) -> dict[str, Any]:
    """JSON schema of what a request may set of a group."""
    schema = group.model_json_schema()
    properties = {name: value for name, value in schema["properties"].items() if name not in OWN_BY_SERVER[group]}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _is_address(text: str) -> str:
    parse_url(text)
    return text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(_Part):
    """Where a file comes from: an address, a `data:` URI of a picture, the id of an upload, or the name of an entry of the
    library. Exactly one."""

    url: str | None = Field(default=None, max_length=8 * 2**20)
    upload: str | None = Field(default=None, max_length=64)
    library: str | None = Field(default=None, max_length=64)

    @model_validator(mode="after")
    def _one(self) -> Source:
        if [self.url, self.upload, self.library].count(None) != 2:
            raise ValueError("give either url, upload or library")
        return self


class Lora(_Part):
    """A LoRA by the name that the service's settings give it; it acts in the steps from `start` to `stop`, shares of all."""

    name: str = Field(max_length=100)
    strength: float = Field(default=1.0, ge=-10, le=10)
    start: float = Field(default=0.0, ge=0, lt=1)
    stop: float = Field(default=1.0, gt=0, le=1)


class Webhook(_Part):
    """An address that is told of the job: `events` of `job.scheduled`, `job.succeeded`, `job.failed`, `job.cancelled`, and
    `job.revoked`, where the approval of its result is taken back."""

    url: Annotated[str, Field(max_length=2000), AfterValidator(_is_address)]
    events: tuple[Literal["job.scheduled", "job.succeeded", "job.failed", "job.cancelled", "job.revoked"], ...] = (
        "job.succeeded", "job.failed", "job.cancelled", "job.revoked",
    )  # fmt: skip


class Submission(_Part):
    """A job as it is stored.

    parent: of `generate` the job whose guides are taken, of `redraw` and `finish` the job that is made again. segment: of
    `redraw`, from 1.
    version_of: an earlier job; the result is reviewed as a new version of that job's shot.
    contract: inputs are held to the hosted contract's limits. check_image: look at the picture before generating.
    """

    kind: Kind = "animate"
    mode: Literal["animation", "replacement"] = "animation"
    image: Source | None = None
    video: Source | None = None
    mask: Source | None = None
    parent: str | None = Field(default=None, max_length=64)
    segment: int | None = Field(default=None, ge=1, le=10**6)
    version_of: str | None = Field(default=None, max_length=64)
    checkpoint: str | None = Field(default=None, max_length=100)
    tier: str | None = Field(default=None, max_length=50)
    loras: tuple[Lora, ...] = Field(default=(), max_length=16)
    preprocess: Annotated[dict[str, Any], WithJsonSchema(_schema(PreprocessSettings))] = {}
    generate: Annotated[dict[str, Any], WithJsonSchema(_schema(GenerateSettings))] = {}
    output: Annotated[dict[str, Any], WithJsonSchema(_schema(OutputSettings))] = {}
    speed: Literal["exact", "fast", "turbo"] | None = None
    contract: bool = False
    check_image: bool = False
    priority: int = Field(default=0, ge=-100, le=100)
    webhook: Webhook | None = None
    prompt: str = Field(default="", max_length=5000)
    name: str = Field(default="", max_length=200)

    @model_validator(mode="after")
    def _storable(self) -> Submission:
        if not _is_storable(self.model_dump()):
            raise ValueError("a text has characters that cannot be stored")
        return self

    @classmethod
    def of(cls, given: Any) -> Submission:
        """From what a request says. Raises ServiceError (400) with the first thing that is wrong."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "body"
            if first["type"] == "missing":
                raise wrong(field, f"Field required: {field}.") from error
            reason = first["msg"].removeprefix("Value error, ").rstrip(".")
            raise wrong(field, f"{field}: {reason}.") from error

    def check(self, settings: ServeSettings) -> None:
        """Refuse what no worker could do. Raises ServiceError (400)."""
        needed = {
            "animate": ("image", "video"), "preprocess": ("image", "video"), "generate": ("parent",),
            "redraw": ("parent", "segment"), "finish": ("parent",), "people": ("video",), "check": ("image", "video"),
            "relight": ("image", "video"), "library": (),
        }[self.kind]  # fmt: skip
        for field in needed:
            if getattr(self, field) is None:
                raise wrong(field, f"Field required: {field}.")
        if self.kind == "relight" and self.mode != "replacement":
            raise wrong("mode", "mode: only a replacement is relit.")
        self.check_settings(settings)

    def check_settings(self, settings: ServeSettings) -> None:
        """The same, but for the files that a job needs. Raises ServiceError (400)."""
        if self.mask is not None and self.mode != "replacement":
            raise wrong("mask", "mask: only a replacement has a mask.")
        if self.checkpoint is not None and self.checkpoint not in settings.known_checkpoints:
            raise wrong("checkpoint", f"checkpoint: there is none of that name; {_names(settings.known_checkpoints)}.")
        if self.tier is not None and self.tier not in settings.tiers:
            raise wrong("mode", f"mode: there is no such tier; {_names(settings.tiers)}.")
        for lora in self.loras:
            if lora.name not in settings.loras:
                raise wrong("loras", f"loras: there is none of the name {lora.name!r}; {_names(settings.loras)}.")
            if lora.start >= lora.stop:
                raise wrong("loras", "loras: its share of the steps ends before it starts.")
        self.preprocess_settings(settings)
        self.generate_settings(settings)
        self.output_settings(settings)

    def preprocess_settings(self, settings: ServeSettings, **more: Any) -> PreprocessSettings:
        """Raises ServiceError (400)."""
        tier = (
            {} if self.tier is None else {"fps": settings.tiers[self.tier].fps, "area": settings.tiers[self.tier].area}
        )
        own = {name: value for name, value in tier.items() if value is not None}
        return _settings(PreprocessSettings, own | self.preprocess, more)

    def generate_settings(self, settings: ServeSettings, **more: Any) -> GenerateSettings:
        """Raises ServiceError (400)."""
        loras = [lora.model_dump(exclude={"name"}) | {"path": settings.loras[lora.name]} for lora in self.loras]
        prompt = {"prompt": self.prompt} if self.prompt else {}
        return _settings(GenerateSettings, prompt | self.generate, {"lora": loras} | more)

    def output_settings(self, settings: ServeSettings, **more: Any) -> OutputSettings:
        """Raises ServiceError (400)."""
        tier = settings.tiers.get(self.tier or "")
        own = {} if tier is None else {"fps_out": tier.fps_out, "upscale": tier.upscale}
        given = {name: value for name, value in own.items() if value is not None}
        policy = {"final": True} if settings.finals == "all" else {}
        return _settings(OutputSettings, given | self.output, policy | more)

    def speed_of(self, settings: ServeSettings) -> str:
        """How exact its networks compute: as it says, as its tier says, as the service says."""
        tier = settings.tiers.get(self.tier or "")
        return self.speed or (tier.speed if tier is not None else None) or settings.speed

    @property
    def lora_key(self) -> str:
        """What a worker that holds these LoRAs says it holds."""
        return ",".join(sorted(f"{lora.name}:{lora.strength:g}" for lora in self.loras))


def _settings(group: type[_Group], given: dict[str, Any], more: dict[str, Any]) -> _Group:
    for name in given:
        if name in OWN_BY_SERVER[group]:
            raise wrong(f"{group.part}.{name}", f"{group.part}.{name}: a request cannot set it.")
    try:
        return group(**given | more)
    except InputError as error:
        raise of_input(error) from error


def _is_storable(value: Any) -> bool:
    """Whether every text in it is UTF-8 without zero bytes, which Postgres does not take."""
    if isinstance(value, dict):
        return all(_is_storable(name) and _is_storable(one) for name, one in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_storable, value))
    return not isinstance(value, str) or not _UNSTORABLE.search(value)


def _names(known: dict[str, Any]) -> str:
    return f"known are {', '.join(known)}" if known else "none is set up here"
