"""Files of the hosted contract: a policy to upload, and the form that stores one below an `oss://` name.

A client sees a store: the form is authorised by the signed policy alone, and refused in XML, or in JSON for who accepts that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from wanimate.serve.content import Received, TooLarge, receive
from wanimate.serve.errors import ServiceError, wrong
from wanimate.serve.faces.common import Base, RequestId, Submitter, TheService
from wanimate.serve.forms import MALFORMED, Part, landing, media_type, parts
from wanimate.serve.policies import LASTS, Policies, Policy
from wanimate.serve.service import Service
from wanimate.serve.tables import now

MODELS: dict[str, Literal["animation", "replacement"]] = {
    "wan2.2-animate-move": "animation",
    "wan2.2-animate-mix": "replacement",
}
"""The contract's models, by what they do."""
_FORM = "/api/v1/uploads/form"
_A_SECOND = 100
_LONGEST = 2**16
_STORE_CODES = {"InvalidParameter": "InvalidArgument", MALFORMED: "InvalidArgument"}

router = APIRouter()


def known_model(found: Any) -> str:
    """A model of the contract. Raises ServiceError (400)."""
    if found is None or found == "":
        raise wrong("model", "Field required: model.", "BadRequest.EmptyModel")
    if not isinstance(found, str) or found not in MODELS:
        raise wrong("model", "Model not exist.")
    return found


@router.get("/api/v1/uploads", summary="A policy to upload files")
@router.get("/api/v1/uploads/", include_in_schema=False)
def policy(
    service: TheService, request_id: RequestId, caller: Submitter, base: Base, action: str = "", model: str = ""
) -> dict[str, Any]:
    """`action=getPolicy&model=MODEL`. One policy serves several files, for 5 minutes."""
    if action != "getPolicy":
        raise wrong("action", "action: it has to be getPolicy.")
    model = known_model(model)
    seconds = service.rates.wait(f"policy {caller.owner} {model}", _A_SECOND)
    if seconds:
        text = "Requests for upload policies come too fast for this account."
        raise ServiceError(429, "Throttling.RateQuota", text, retry_after=seconds)
    given = Policy.new(caller.owner, model)
    most = _most(service)
    text, signature = Policies(service.secret).signed(given, most)
    megabytes = most // 2**20 or 1
    return {
        "request_id": request_id,
        "data": {
            "policy": text, "signature": signature, "upload_dir": given.folder, "upload_host": f"{base}{_FORM}",
            "expire_in_seconds": LASTS, "max_file_size_mb": megabytes,
            "capacity_limit_mb": service.settings.largest_uploads // 2**20,
            "oss_access_key_id": caller.key_id, "x_oss_object_acl": "private", "x_oss_forbid_overwrite": "true",
        },
    }  # fmt: skip


_PARTS = {
    "type": "object", "required": ["Signature", "policy", "key", "file"],
    "properties": {
        "OSSAccessKeyId": {"type": "string"}, "Signature": {"type": "string"}, "policy": {"type": "string"},
        "key": {"type": "string"}, "file": {"type": "string", "format": "binary"},
    },
}  # fmt: skip
_BODY = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _PARTS}}}}


@router.post(_FORM, summary="Store a file with a policy", response_class=Response, openapi_extra=_BODY)
@router.post(f"{_FORM}/", include_in_schema=False, response_class=Response)
async def form(request: Request, service: TheService, request_id: RequestId) -> Response:
    """multipart/form-data as a policy asks for it, `file` last. The answer is 200; the file is `oss://KEY` from then on."""
    try:
        await _store(request, service)
    except ServiceError as error:
        return _as_a_store(request, error, request_id)
    return Response(status_code=200)


async def _store(request: Request, service: Service) -> None:
    """Raises ServiceError, StorageAway."""
    if media_type(request) != "multipart/form-data":
        raise ServiceError(400, "MalformedPOSTRequest", "The body of your POST request is not multipart/form-data.")
    fields: dict[str, str] = {}
    async for part in parts(request):
        if part.name != "file":
            fields[part.name.lower()] = await part.text(_LONGEST)
            continue
        granted, key = _granted(service, fields)
        if await run_in_threadpool(service.upload, granted.owner, f"oss://{key}") is not None:
            raise _exists()
        with landing(service.settings.scratch) as folder:
            place = folder / "file"
            received = await _received(part, place, _most(service))
            await run_in_threadpool(_keep, service, granted, key, place, received)
        return
    raise ServiceError(400, "InvalidArgument", "The form has no field `file`; it has to be the last one.")


def _granted(service: Service, fields: dict[str, str]) -> tuple[Policy, str]:
    """The policy of a form and the key that it names. Raises ServiceError (400, 403)."""
    for name in ("policy", "signature", "key"):
        if not fields.get(name):
            raise ServiceError(400, "InvalidArgument", f"The form has no field `{name}` before the file.")
    granted = Policies(service.secret).found(fields["policy"], fields["signature"])
    if granted is None:
        text = "The request signature we calculated does not match the signature you provided."
        raise ServiceError(403, "SignatureDoesNotMatch", text)
    if granted.expires <= now():
        raise ServiceError(403, "AccessDenied", "Invalid according to Policy: Policy expired.")
    if not granted.takes(fields["key"]):
        text = "Invalid according to Policy: the key has to be a file name below the policy's folder."
        raise ServiceError(403, "AccessDenied", text)
    return granted, fields["key"]


async def _received(part: Part, place: Path, most: int) -> Received:
    try:
        return await receive(part.stream(), place, most)
    except TooLarge as error:
        text = f"Your proposed upload exceeds the maximum allowed size of {most} bytes."
        raise ServiceError(400, "EntityTooLarge", text) from error


def _keep(service: Service, granted: Policy, key: str, place: Path, received: Received) -> None:
    filename = key.rpartition("/")[2]
    try:
        service.add_upload(granted.owner, place, filename, received.sha256, f"oss://{key}", granted.model)
    except ServiceError as error:
        raise (_exists() if error.status == 409 else error) from error


def _exists() -> ServiceError:
    return ServiceError(409, "FileAlreadyExists", "The object you specified already exists and can not be overwritten.")


def _most(service: Service) -> int:
    return max(service.settings.largest_clip, service.settings.largest_picture)


def _as_a_store(request: Request, error: ServiceError, request_id: str) -> Response:
    code = _STORE_CODES.get(error.code, error.code)
    if "json" in request.headers.get("accept", ""):
        return JSONResponse({"request_id": request_id, "code": code, "message": error.message}, error.status)
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n'
        f"  <Code>{escape(code)}</Code>\n  <Message>{escape(error.message)}</Message>\n"
        f"  <RequestId>{escape(request_id)}</RequestId>\n</Error>\n"
    )
    return Response(body, error.status, media_type="application/xml")
