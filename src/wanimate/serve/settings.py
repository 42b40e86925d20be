"""Settings of the service: from flags, then the environment (`WANIMATE_SERVE_PORT`), then a TOML file, then these defaults."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from wanimate.config import MarkSettings
from wanimate.config.target import parse_target
from wanimate.errors import InputError
from wanimate.media.files import user_data

Speed = Literal["exact", "fast", "turbo"]
EMBEDDED = "mannequin"
"""Name of the checkpoint in the package."""


class Tier(BaseModel):
    """A tier of the hosted contract. `area` is in pixels; None is the checkpoint's own, which is the 720p class for the 14B.

    fps: drawn by the network. fps_out, upscale: as delivered; None is as drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fps: float = Field(gt=0, le=60)
    area: int | None = Field(default=None, ge=256)
    speed: Speed | None = None
    fps_out: float | None = Field(default=None, gt=0, le=240)
    upscale: str | None = Field(default=None, max_length=20)

    @field_validator("upscale")
    @classmethod
    def _a_target(cls, text: str | None) -> str | None:
        try:
            if text is not None:
                parse_target(text)
        except InputError as error:
            raise ValueError(error.rule) from error
        return text


class Quotas(BaseModel):
    """What one key may use. None is no limit. `seconds_a_day` counts seconds of the driving clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    running: int | None = Field(default=None, ge=1)
    queued: int | None = Field(default=200, ge=1)
    seconds_a_day: float | None = Field(default=None, gt=0)
    creations_a_second: float = Field(default=5.0, gt=0)
    requests_a_second: float = Field(default=100.0, gt=0)


class ServeSettings(BaseSettings):
    """Everything that `wanimate serve`, `worker` and `keys` are told.

    Raises:
        InputError: a value breaks its rule (`of`).
    """

    model_config = SettingsConfigDict(
        env_prefix="WANIMATE_SERVE_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535)
    public_url: str | None = None
    """How clients reach the service, where a proxy stands before it. Links in answers begin with it."""
    data: Path = Field(default_factory=lambda: user_data() / "serve")
    database: str | None = None
    storage: str | None = None
    allow_fetch: tuple[str, ...] = ()

    checkpoints: dict[str, Path] = {}
    """Name -> folder. Requests choose by name only. The package's own is always there as `mannequin`."""
    checkpoint: Path | None = None
    """The default one."""
    loras: dict[str, Path] = {}
    tiers: dict[str, Tier] = {"wan-std": Tier(fps=15), "wan-pro": Tier(fps=25)}
    clips: Literal["any", "approved"] = "any"
    """Which clips jobs may take. approved: of the library only, and only approved ones; so are characters of the library."""
    marks: MarkSettings = MarkSettings()
    """Of results that are finals."""
    finals: Literal["asked", "all"] = "asked"
    """Which results are: those whose request says `output.final`, or all, whatever it says."""
    policy: Path | None = None
    """The house's policy, a TOML file (docs/approval.md). Results that it holds are served once they are approved."""
    heads: Path | None = None
    """A file away from the database that the hash of each decision is added to. Chains are held against it."""
    speed: Speed = "exact"
    device: str | None = None
    workers: int | None = Field(default=None, ge=0, le=64)
    """Generating processes; None is one a GPU, or one on the processor."""
    quotas: Quotas = Quotas()

    lease: float = Field(default=30.0, ge=1)
    """Seconds without a sign of life after which a job is given to another worker."""
    attempts: int = Field(default=3, ge=1, le=10)
    keep_results: float = Field(default=24.0, gt=0)
    keep_uploads: float = Field(default=48.0, gt=0)
    keep_guides: float = Field(default=720.0, gt=0)
    keep_reviewed: float = Field(default=720.0, gt=0)
    """Hours: of a finished job; of an upload; of guides of the library's clips, after their last use; of results that are
    reviewed, after what was last said or decided."""
    repeated_within: float = Field(default=10.0, ge=0)
    """Seconds in which the same body with the same key is the same job."""
    largest_picture: int = Field(default=5 * 2**20, ge=1)
    largest_clip: int = Field(default=200 * 2**20, ge=1)
    largest_uploads: int = Field(default=20 * 2**30, ge=1)
    """Bytes of all uploads of one owner that have not expired."""
    largest_library: int = Field(default=50 * 2**30, ge=1)
    """Bytes of one owner's files in the library."""
    largest_body: int = Field(default=8 * 2**20, ge=1024)
    fetch_seconds: float = Field(default=120.0, gt=0)
    prepare_memory: float | None = Field(default=8.0, gt=0)
    """GiB that the process that opens strangers' files may take; None is no limit."""
    prepare_seconds: float = Field(default=1800.0, gt=0)
    log_json: bool | None = None
    """Logs as JSON, one object a line; None is so unless a person reads them on a terminal."""
    telemetry: bool = False
    ray: str | None = None

    @field_validator("allow_fetch")
    @classmethod
    def _host_and_port(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for one in given:
            host, _, port = one.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(f"{one!r} is not HOST:PORT")
        return given

    @classmethod
    def of(cls, config: Path | None = None, **given: Any) -> ServeSettings:
        """Settings of flags (None: not given) over the environment and a TOML file.

        Raises:
            InputError: a value breaks its rule, or the file cannot be read.
        """
        flags = {name: value for name, value in given.items() if value is not None}
        try:
            chosen = cls(**flags)
            if config is not None:
                rest = tomllib.loads(config.read_text())
                flags |= {name: value for name, value in rest.items() if name not in chosen.model_fields_set}
                chosen = cls(**flags)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(str(part) for part in first["loc"]) or "settings"
            rule = first["msg"].removeprefix("Value error, ")
            raise InputError(f"serve.{name}", first["input"], rule, "Give another value.") from error
        except InputError as error:  # of a group that a job has, too
            raise InputError(f"serve.{error.field}", error.value, error.rule, error.remedy) from error
        except (OSError, ValueError) as error:
            raise InputError("serve.config", config, f"it cannot be read ({error})", "Name a TOML file.") from error
        return chosen

    @property
    def database_url(self) -> str:
        """As SQLAlchemy takes it."""
        if self.database is None:
            return f"sqlite:///{self.data.absolute() / 'wanimate.db'}"
        for plain in ("postgresql://", "postgres://"):
            if self.database.startswith(plain):
                return "postgresql+psycopg://" + self.database.removeprefix(plain)
        return self.database

    @property
    def storage_url(self) -> str:
        return self.storage or str(self.data.absolute() / "files")

    @property
    def scratch(self) -> Path:
        """Where this machine's workers keep what they work on."""
        return self.data.absolute() / "scratch"

    @property
    def default_checkpoint(self) -> str:
        """The name that jobs take which name none."""
        if self.checkpoint is not None:
            return next((n for n, p in self.checkpoints.items() if p == self.checkpoint), self.checkpoint.name)
        return next(iter(self.checkpoints), EMBEDDED)

    @property
    def known_checkpoints(self) -> dict[str, Path | None]:
        """Name -> folder; None is the package's own."""
        known: dict[str, Path | None] = {EMBEDDED: None, **self.checkpoints}
        if self.checkpoint is not None:
            known.setdefault(self.default_checkpoint, self.checkpoint)
        return known
