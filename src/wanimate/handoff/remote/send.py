"""One road out: the gate is asked, what leaves is written down, and then the first byte goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from wanimate.approval.leaving import Gate, Leaving, Passed
from wanimate.handoff.remote.base import (
    Item,
    Options,
    Package,
    Sent,
    Shipment,
    Steps,
    Target,
    check_bytes,
    parse_target,
)
from wanimate.handoff.remote.delivery import chosen, to_frameio
from wanimate.handoff.remote.descript import DESCRIPT_URL, descript_media, to_descript
from wanimate.handoff.remote.frameio import FRAMEIO_URL, FrameIo
from wanimate.handoff.remote.http import Service, Wire
from wanimate.handoff.remote.journal import Journal
from wanimate.handoff.remote.limits import Clock, RealClock
from wanimate.handoff.remote.tokens import IMS_URL, descript_token, frameio_token


@dataclass(frozen=True)
class Services:
    """Where the services are. Tests name a stand-in."""

    frameio: str = FRAMEIO_URL
    ims: str = IMS_URL
    descript: str = DESCRIPT_URL
    clock: Clock = field(default_factory=RealClock)


def send(
    package: Package,
    target: str,
    gate: Gate,
    shipment: Shipment,
    options: Options = Options(),
    services: Services | None = None,
) -> Sent:
    """Hand a package off to Frame.io or Descript, as `sending` does."""
    steps = sending(package, target, gate, shipment, options, services)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            sent: Sent = end.value
            return sent


def sending(
    package: Package,
    target: str,
    gate: Gate,
    shipment: Shipment,
    options: Options = Options(),
    services: Services | None = None,
) -> Steps[Sent]:
    """Hand a package off to Frame.io or Descript, and tell each step. Called again after a stop, it goes on where it was.

    Args:
        package: what is sent. Its files have the bytes that it names.
        target: `frameio:PROJECT/FOLDER` or `descript:PROJECT`, by names or ids.
        gate: asked before anything leaves, and told before the first byte does.
        shipment: the result that the package was made of.
        services: where they are; None is the real ones.

    Raises:
        InputError: the target, the package or the token cannot be used; the gate says no. RemoteError: the service refuses or
            cannot be reached. HeldError: another process hands this shot off there.
    """
    place, services = parse_target(target), services or Services()
    items = _items(package, place, options)
    check_bytes(package, items)
    leaving = Leaving(
        package.output_sha256, place.service, place.text, shipment.regions,
        tuple((item.name, item.sha256) for item in items),
    )  # fmt: skip
    passed = gate.check(shipment.result, leaving)
    leave = _leave(gate, leaving, passed)
    if place.service == "frameio":
        with frameio(options.token_file, services) as api:
            sent = yield from to_frameio(api, package, place, shipment, options, leave)
    else:
        with descript(options.token_file, services) as service:
            sent = yield from to_descript(service, package, place, shipment, options, leave)
    return replace(sent, decisions=tuple(passed.decisions))


def _leave(gate: Gate, leaving: Leaving, passed: Passed) -> Callable[[Journal], None]:
    """Writes down that it leaves, once for each hand-off."""

    def leave(journal: Journal) -> None:
        what = {"sha256": leaving.output_sha256, "derived": [list(one) for one in leaving.derived]}
        told = {**what, "regions": list(leaving.regions), "decisions": list(passed.decisions)}
        if not journal.has("left", **told):
            gate.left(leaving, passed)
            journal.add("left", **told)

    return leave


@contextmanager
def frameio(token_file: Path | None, services: Services) -> Iterator[FrameIo]:
    """Frame.io with its token. Raises InputError where there is none."""
    with closing(Wire("Frame.io", services.clock)) as wire:
        yield FrameIo(Service(wire, services.frameio, frameio_token(wire, token_file, ims_url=services.ims)))


@contextmanager
def descript(token_file: Path | None, services: Services) -> Iterator[Service]:
    """Descript with its token. Raises InputError where there is none."""
    with closing(Wire("Descript", services.clock)) as wire:
        yield Service(wire, services.descript, descript_token(token_file))


def _items(package: Package, place: Target, options: Options) -> list[Item]:
    """What of the package leaves. Raises InputError where the service does not take it."""
    if place.service == "frameio":
        return chosen(package, options)
    media, _ = descript_media(package, options)
    return [one.item for one in media]
