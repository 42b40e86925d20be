"""Consents and moments for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from wanimate.approval.consents import Consent, consent_of
from wanimate.approval.terms import Use

CLIP, IMAGE = "c" * 64, "1" * 64
NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
USE = Use(("DE",), ("ad",), ("video",))


def limit(left: str, operator: str, right: Any) -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def data(*constraints: dict[str, Any], uid: str = "urn:consent:1", asset: str = CLIP, **around: Any) -> dict[str, Any]:
    """A consent as JSON: use under these constraints. `around`: keys beside the agreement."""
    return {
        "agreement": {
            "@context": "http://www.w3.org/ns/odrl.jsonld", "@type": "Agreement", "uid": uid, "target": f"sha256:{asset}",
            "assigner": "urn:person:7", "assignee": "urn:house:1",
            "permission": [{"action": "use", "constraint": list(constraints)}],
        },
        "subject": {"id": "urn:person:7", "minor": False, "deceased": False},
        "represented_by": "union",
        "uses_described": "Dances of a mannequin in an ad for shoes.",
        "document_sha256": "d" * 64,
        "signed_at": "2026-01-10T09:00:00+01:00",
        **around,
    }  # fmt: skip


def consent(*constraints: dict[str, Any], uid: str = "urn:consent:1", asset: str = CLIP, **around: Any) -> Consent:
    return consent_of(data(*constraints, uid=uid, asset=asset, **around))
