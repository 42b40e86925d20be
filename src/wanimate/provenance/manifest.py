"""What a C2PA manifest says about a result: actions, inputs, disclosure. Data alone; `signing` signs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wanimate.config import MarkSettings
from wanimate.provenance.about import TITLES, About, Role
from wanimate.versions import version_of

SOFT_BINDING = "org.wanimate.spread.1"
"""The invisible watermark's name as an algorithm."""
JOB = "org.wanimate.job"
_TRAINING = ("cawg.ai_training", "cawg.ai_generative_training", "cawg.ai_inference", "cawg.data_mining")
_CONTEXT = {"Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "dc": "http://purl.org/dc/elements/1.1/"}


def definition(
    about: About, settings: MarkSettings, form: str, roles: Sequence[Role], signed_before: bool, watermarked: bool
) -> dict[str, Any]:
    """The manifest of a result.

    Args:
        form: media type of the file that is signed.
        roles: the inputs that are put in as ingredients; an ingredient's id is its role.
        signed_before: the result was made of a finished file that has a manifest of its own, which tells of the inputs.
        watermarked: the frames carry the invisible watermark.
    """
    assertions: list[dict[str, Any]] = [
        _assertion("c2pa.actions", {"actions": _actions(about, roles, signed_before, watermarked)}),
        _assertion("c2pa.ai-disclosure", _disclosure(about, settings)),
        _assertion("cawg.training-mining", {"entries": _entries(settings)}),
        _assertion(
            "c2pa.metadata",
            {
                "@context": _CONTEXT,
                "Iptc4xmpExt:DigitalSourceType": about.source_type,
                "dc:publisher": settings.producer,
            },
        ),
    ]
    if watermarked:
        block = {"scope": {}, "value": f"{about.payload:08x}"}
        assertions.append(_assertion("c2pa.soft-binding", {"alg": SOFT_BINDING, "blocks": [block]}))
    if about.job is not None:
        assertions.append(_assertion(JOB, {"id": about.id, **about.job}))
    return {
        "claim_generator_info": [{"name": "wanimate", "version": version_of("wanimate") or "0"}],
        "title": f"wanimate {about.mode}",
        "format": form,
        "assertions": assertions,
    }


def ingredient(role: Role, signed_before: bool, about: About) -> dict[str, str]:
    """How an input is named. No file names: they can hold those of people."""
    parent = role == "finished" or (role == "performance" and about.mode == "replacement" and not signed_before)
    part = "inputTo" if about.mode == "animation" else "componentOf"
    return {"title": TITLES[role], "relationship": "parentOf" if parent else part, "instance_id": role}


def _actions(about: About, roles: Sequence[Role], signed_before: bool, watermarked: bool) -> list[dict[str, Any]]:
    steps = [{"action": step} for step in about.steps]
    every = [{"action": step} for step in dict.fromkeys((*about.earlier, *about.steps))]
    marked = [{"action": "c2pa.watermarked.bound"}] if watermarked else []
    if signed_before:
        return [_of(["finished"], action="c2pa.opened"), *(steps or [{"action": "c2pa.edited.metadata"}]), *marked]
    agent = {"softwareAgent": {"name": about.model or "wanimate"}}
    if about.mode == "replacement" and "performance" in roles:
        others = [role for role in roles if role == "picture"]
        edited = _of(others, action="c2pa.edited", digitalSourceType=about.source_type, **agent)
        return [_of(["performance"], action="c2pa.opened"), edited, *every, *marked]
    inputs = [role for role in roles if role != "finished"]
    return [_of(inputs, action="c2pa.created", digitalSourceType=about.source_type, **agent), *every, *marked]


def _of(roles: Sequence[Role], **action: Any) -> dict[str, Any]:
    return action | ({"parameters": {"ingredientIds": list(roles)}} if roles else {})


def _disclosure(about: About, settings: MarkSettings) -> dict[str, Any]:
    """The level of oversight stands where C2PA 2.4 has it, and beside the model, where readers of earlier drafts look."""
    return {
        "modelType": "c2pa.types.model",
        "modelName": about.model or "wanimate",
        "modelIdentifier": about.model_id or "unknown",
        "humanOversightLevel": settings.oversight,
        "contentProfile": {"humanOversightLevel": settings.oversight},
    }


def _entries(settings: MarkSettings) -> dict[str, dict[str, str]]:
    return {name: {"use": "allowed" if settings.training else "notAllowed"} for name in _TRAINING}


def _assertion(label: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"label": label, "data": data}
