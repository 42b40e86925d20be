"""The library of this machine's service, for commands and Python: it works whether the service runs or not.

Which one it is, the service's settings say: `WANIMATE_SERVE_DATA`, `WANIMATE_SERVE_DATABASE` and `WANIMATE_SERVE_STORAGE`, else
the usual folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wanimate.config import Job, PreprocessSettings
from wanimate.config.job import LIBRARY
from wanimate.errors import InputError
from wanimate.media.files import cache_folder

if TYPE_CHECKING:
    from wanimate.library.entries import Library
    from wanimate.serve.settings import ServeSettings

_NO_LINKS = b"the library signs no links"


def home_settings() -> ServeSettings:
    """The service's settings as the environment gives them. Raises InputError: the packages of the service are missing."""
    try:
        from wanimate.serve.settings import ServeSettings
    except ModuleNotFoundError as error:
        rule = f"the package {error.name} is not installed"
        raise InputError("library", LIBRARY, rule, "Install wanimate[serve].") from error
    return ServeSettings.of()


def open_library(settings: ServeSettings) -> Library:
    """Raises InputError: database or storage cannot be opened."""
    from wanimate.library.entries import Library
    from wanimate.serve.database import Database
    from wanimate.serve.storage import Storage

    database = Database(settings.database_url)
    database.open()
    return Library(database, Storage(settings.storage_url, _NO_LINKS))


def with_files(job: Job) -> Job:
    """The job with files in place of entries of the library.

    Raises:
        InputError: an entry is not there, is retired, or is not approved where the service's settings ask for it.
    """
    image, video, preprocess = named_files(job.image, job.video, job.preprocess)
    return job.model_copy(update={"image": image, "video": video, "preprocess": preprocess})


def named_files(
    image: Path | None, video: Path, settings: PreprocessSettings
) -> tuple[Path | None, Path, PreprocessSettings]:
    """The same for picture and clip alone. Where the performer of a clip is found, the library keeps.

    Raises:
        InputError: as `with_files`.
    """
    from wanimate.library import places
    from wanimate.library.entries import check_use
    from wanimate.library.names import named

    home = home_settings()
    library = open_library(home)

    def local(name: str) -> Path:
        """In the storage, where that is a folder of this machine; else in the user's cache."""
        found = library.storage.local_path(name)
        return cache_folder() / name if found is None else found

    def file(path: Path, field: str) -> tuple[Path, str | None]:
        name = named(str(path))
        if name is None:
            return path, None
        entry = check_use(library.find(name, None), name, field, home.clips == "approved")
        stored = places.file_of(entry.sha256, entry.suffix)
        place = local(stored)
        if not place.exists():
            library.storage.fetch(stored, place)
        return place, entry.sha256

    try:
        picture = None if image is None else file(image, "image")[0]
        clip, content = file(video, "video")
    finally:
        library.database.close()
    if content is not None and settings.performers is None:
        settings = settings.model_copy(update={"performers": local(places.found_in(content))})
    return picture, clip, settings
