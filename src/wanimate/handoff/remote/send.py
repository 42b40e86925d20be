"""One road out: the gate is asked, what leaves is written down, and then the first byte goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from wanimate.approval.leaving import Gate, Leaving, Passed
from wanimate.errors import InputError
from wanimate.handoff.remote.base import Item, Options, Package, Sent, Shipment, Target, Tell, check_bytes, parse_target
from wanimate.handoff.remote.delivery import chosen, to_frameio
from wanimate.handoff.remote.descript import DESCRIPT_URL, descript_media, to_descript
from wanimate.handoff.remote.frameio import FRAMEIO_URL, FrameIo
from wanimate.handoff.remote.http import Service, Wire
from wanimate.handoff.remote.journal import Journal
from wanimate.handoff.remote.limits import Clock, RealClock
from wanimate.handoff.remote.tokens import IMS_URL, descript_token, frameio_token
from wanimate.media.files import sha256


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
    services: Services = Services(),
    tell: Tell = lambda text: None,
) -> Sent:
    """Hand a package off to Frame.io or Descript. Called again after a stop, it goes on where it was.

    Args:
        package: what is sent. Its files have the bytes that it names.
        target: `frameio:PROJECT/FOLDER` or `descript:PROJECT`, by names or ids.
        gate: asked before anything leaves, and told before the first byte does.
        shipment: the result that the package was made of.
        tell: told of each step.

    Raises:
        InputError: the target, the package or the token cannot be used; the gate says no. RemoteError: the service refuses or
            cannot be reached. HeldError: another process hands this shot off there.
    """
    place = parse_target(target)
    items = _items(package, place, options)
    check_bytes(package, items)
    if sha256(shipment.result) != shipment.output_sha256:
        remedy = "Make the package of the file as it is now."
        raise InputError("shot", shipment.result, "it has changed since the package was made", remedy)
    leaving = Leaving(
        shipment.output_sha256, place.service, place.text, shipment.regions,
        tuple((item.name, item.sha256) for item in items),
    )  # fmt: skip
    passed = gate.check(shipment.result, leaving)
    service = open_service(place, options, services)
    leave = _leave(gate, leaving, passed)
    try:
        if place.service == "frameio":
            sent = to_frameio(FrameIo(service), package, place, shipment, options, tell, leave)
        else:
            sent = to_descript(service, package, place, shipment, options, tell, leave)
    finally:
        service.wire.close()
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


def open_service(place: Target, options: Options, services: Services) -> Service:
    """The service behind a target, with its token. Raises InputError where there is none."""
    if place.service == "frameio":
        wire = Wire("Frame.io", services.clock)
        return Service(wire, services.frameio, frameio_token(wire, options.token_file, ims_url=services.ims))
    return Service(Wire("Descript", services.clock), services.descript, descript_token(options.token_file))


def _items(package: Package, place: Target, options: Options) -> list[Item]:
    """What of the package leaves. Raises InputError where the service does not take it."""
    if place.service == "frameio":
        return chosen(package, options)
    media, _ = descript_media(package, options)
    return [one.item for one in media]
