"""`wanimate serve`, `wanimate worker` and `wanimate keys`: the service, more workers for it, and who may use it."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from wanimate.cli.build import command
from wanimate.cli.options import option
from wanimate.cli.report import Reporter
from wanimate.errors import InputError

if TYPE_CHECKING:
    from wanimate.serve.settings import ServeSettings

PLACES, LISTENING, WORK, KEY = "Places", "Listening", "Work", "Key"
NAMES = {
    "serve.host": "--host", "serve.port": "--port", "serve.data": "--data", "serve.database": "--database",
    "serve.storage": "--storage", "serve.allow_fetch": "--allow-fetch", "serve.config": "--config",
    "serve.checkpoint": "--checkpoint", "serve.speed": "--speed", "serve.workers": "--workers", "serve.device": "--device",
    "serve.public_url": "--public-url", "serve.ray": "--ray",
}  # fmt: skip

Data = Annotated[
    Path | None,
    option(
        PLACES,
        "Folder of the database, the files and the workers' scratch.",
        show_default="~/.local/share/wanimate/serve",
    ),
]
Database = Annotated[
    str | None,
    option(
        PLACES, "Address of the database, postgresql://USER@HOST/NAME for instance.", show_default="SQLite in --data"
    ),
]
StorageUrl = Annotated[
    str | None,
    option(PLACES, "Where files lie: a folder, or s3://BUCKET/PREFIX.", show_default="in --data"),
]
Config = Annotated[Path | None, option(PLACES, "TOML file with settings (docs/service.md).", show_default="none")]
Checkpoint = Annotated[
    Path | None,
    option(WORK, "Checkpoint of jobs that name none: a folder, or its transformer's file.", show_default="mannequin"),
]
Fetch = Annotated[
    list[str] | None,
    option(
        WORK,
        "HOST:PORT that may be fetched although it is not public. Can be given several times.",
        show_default="none",
    ),
]
Speed = Annotated[str | None, option(WORK, "exact, fast or turbo, for jobs that do not say.", show_default="exact")]
Device = Annotated[str | None, option(WORK, "cuda, cuda:N or cpu.", show_default="every GPU, else cpu")]


@command(names=NAMES)
def serve(
    report: Reporter,
    host: Annotated[str | None, option(LISTENING, "Address to listen at.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, option(LISTENING, "Port; 0 is any free one.", show_default="8420")] = None,
    public_url: Annotated[
        str | None,
        option(LISTENING, "How clients reach it, where a proxy stands before it.", show_default="as they asked"),
    ] = None,
    data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
    checkpoint: Checkpoint = None, allow_fetch: Fetch = None, speed: Speed = None, device: Device = None,
    workers: Annotated[
        int | None,
        option(WORK, "Generating processes of this machine; 0 leaves the work to `wanimate worker`.", show_default="one a GPU"),
    ] = None,
    ray: Annotated[
        str | None,
        option(WORK, "Place the workers on a Ray cluster: auto, or its address. Needs wanimate\\[ray].", show_default="none"),
    ] = None,
) -> None:  # fmt: skip
    """Serve jobs over HTTP: the hosted animate contract, OpenAI's videos routes and an interface of its own.

    The first start prints an admin key.

    [bold]Examples[/bold]

    [cyan]wanimate serve[/cyan]

    [cyan]wanimate serve --checkpoint Wan2.2-Animate-14B --host 0.0.0.0 --database postgresql://wanimate@db/wanimate --storage
    s3://videos/wanimate[/cyan]
    """
    settings = settings_of(
        config, host=host, port=port, public_url=public_url, data=data, database=database, storage=storage,
        checkpoint=checkpoint, allow_fetch=allow_fetch, speed=speed, device=device, workers=workers, ray=ray,
    )  # fmt: skip
    from wanimate.serve.ops.logs import set_up
    from wanimate.serve.supervisor import serve as run

    set_up(settings.log_json)
    run(settings)


@command(names=NAMES)
def worker(
    report: Reporter, data: Data = None, database: Database = None, storage: StorageUrl = None, config: Config = None,
    checkpoint: Checkpoint = None, allow_fetch: Fetch = None, speed: Speed = None, device: Device = None,
    stages: Annotated[
        str, option(WORK, "prepare (finds the performer, on the processor), generate (a GPU), or both.")
    ] = "both",
) -> None:  # fmt: skip
    """Join a service as one more worker, on this machine or another one.

    [bold]Example[/bold]

    [cyan]wanimate worker --database postgresql://wanimate@db/wanimate --storage s3://videos/wanimate --device cuda:1[/cyan]
    """
    settings = settings_of(
        config, data=data, database=database, storage=storage, checkpoint=checkpoint, allow_fetch=allow_fetch, speed=speed,
        device=device,
    )  # fmt: skip
    from wanimate.serve.ops.logs import set_up
    from wanimate.serve.tables import Stage
    from wanimate.serve.worker.process import work
    from wanimate.serve.worker.wan import check_marks, check_weights

    wanted = {"both": list(Stage), "prepare": [Stage.PREPARE], "generate": [Stage.GENERATE]}
    if stages not in wanted:
        raise InputError("stages", stages, "there is no such choice", "Give prepare, generate or both.")
    set_up(settings.log_json)
    check_weights(settings)
    check_marks(settings)
    loop = work(settings, wanted[stages], settings.device)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    logging.getLogger(__name__).info("worker %s joined", loop.name)
    loop.run()


keys = typer.Typer(no_args_is_help=True, help="Make, list or revoke the keys of a service.")


@keys.command("create")
@command(names=NAMES)
def create(
    report: Reporter,
    owner: Annotated[str, option(KEY, "Who everything made with the key belongs to.")],
    scopes: Annotated[str, option(KEY, "Some of submit, read and admin, with commas.")] = "submit,read",
    days: Annotated[float | None, option(KEY, "Days until it expires.", show_default="never")] = None,
    data: Data = None, database: Database = None, config: Config = None,
) -> None:  # fmt: skip
    """Make a key, and print it. It is stored only as a hash, so that it can be read only now.

    [bold]Example[/bold]

    [cyan]wanimate keys create --owner studio[/cyan]
    """
    found = _keys(settings_of(config, data=data, database=database))
    key = found.create(owner, [scope.strip() for scope in scopes.split(",") if scope.strip()], days)
    report.done({"key": key, "owner": owner}, key)


@keys.command("list")
@command(names=NAMES)
def list_(report: Reporter, data: Data = None, database: Database = None, config: Config = None) -> None:
    """List keys, by id. The keys themselves are stored nowhere."""
    rows = _keys(settings_of(config, data=data, database=database)).list()
    table = Table("id", "owner", "scopes", "created", "expires", "state", box=None, header_style="bold")
    told: list[dict[str, Any]] = []
    for row in rows:
        state = "revoked" if row.revoked else "good"
        table.add_row(
            row.id, escape(row.owner), ", ".join(row.scopes), _day(row.created), _day(row.expires) if row.expires else "never",
            state,
        )  # fmt: skip
        told.append(
            {"id": row.id, "owner": row.owner, "scopes": row.scopes, "created": row.created, "expires": row.expires,
             "revoked": row.revoked}
        )  # fmt: skip
    report.done({"keys": told}, [table])


@keys.command("revoke")
@command(names=NAMES)
def revoke(
    report: Reporter, key_id: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")],
    data: Data = None, database: Database = None, config: Config = None,
) -> None:  # fmt: skip
    """Revoke a key. Requests with it are refused within seconds; its owner's jobs go on."""
    if not _keys(settings_of(config, data=data, database=database)).revoke(key_id):
        raise InputError("key_id", key_id, "there is no such key", "`wanimate keys list` shows them.")
    report.done({"revoked": key_id}, f"{key_id} is revoked")


def settings_of(config: Path | None, **given: Any) -> ServeSettings:
    try:
        from wanimate.serve.settings import ServeSettings
    except ModuleNotFoundError as error:
        rule = f"the package {error.name} is not installed"
        raise InputError(
            "serve", sys.argv[1] if len(sys.argv) > 1 else "serve", rule, "Install wanimate[serve]."
        ) from error
    if given.get("allow_fetch") == []:
        given.pop("allow_fetch")
    return ServeSettings.of(config, **given)


def _keys(settings: ServeSettings) -> Any:
    from wanimate.serve.database import Database
    from wanimate.serve.keys import Keys

    database = Database(settings.database_url)
    database.open()
    return Keys(database, settings)


def _day(at: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d")
