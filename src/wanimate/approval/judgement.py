"""The judgement: what speaks for and against a result that is to leave the house, from policy, rules and consents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args

from wanimate.approval.consents import Consent
from wanimate.approval.policy import HousePolicy
from wanimate.approval.rules import Kind, Requirement, Rule, Rules
from wanimate.approval.terms import Use
from wanimate.review.chain import Check


@dataclass(frozen=True)
class Marks:
    """What a file carries. label: as `config.marks`. signed: C2PA. aigc: the key of China's rules, in the metadata."""

    label: str = "none"
    watermark: bool = False
    metadata: bool = False
    aigc: bool = False
    signed: bool = False

    @classmethod
    def found(cls, parts: Mapping[str, Any], label: str = "none") -> Marks:
        """From what `provenance.verify` tells of a file (`Report.parts`), and the label that its record names: no program can
        see a label."""
        states = {name: parts.get(name, {}).get("state") == "found" for name in ("watermark", "xmp", "c2pa")}
        aigc = states["xmp"] and parts["xmp"].get("aigc") is not None
        return cls(label, states["watermark"], states["xmp"], aigc, states["c2pa"])


@dataclass(frozen=True)
class Case:
    """A result that is to leave.

    mode: animation or replacement. clip, image: SHA-256 of what it was made of; None where nobody knows. consent_ids: those
    that the job and the library's entries name. regions, purposes: empty is what the policy says. media: video, tv, web,
    social, cinema or any other word. kind: ad, film, internal or other; None is told from the purposes, if those are such
    words. used: id of a consent -> how often results under it have left before.
    """

    mode: str
    clip: str | None = None
    image: str | None = None
    consent_ids: Sequence[str] = ()
    regions: Sequence[str] = ()
    purposes: Sequence[str] = ()
    media: Sequence[str] = ("video",)
    kind: Kind | None = None
    marks: Marks = Marks()
    used: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What was found.

    checks: every rule that was looked at, for the record. allowed: whether nothing is missing. missing: sentences that say
    what is, and what to do. consent_ids: the consents that it rests on. until: when the first thing ends that it rests on.
    """

    checks: tuple[Check, ...]
    missing: tuple[str, ...]
    consent_ids: tuple[str, ...] = ()
    until: datetime | None = None

    @property
    def allowed(self) -> bool:
        return not self.missing


def judge(case: Case, policy: HousePolicy, rules: Rules, consents: Mapping[str, Consent], at: datetime) -> Verdict:
    """Whether a result may leave.

    Args:
        consents: by id: those that the case names, and all others that are known of its clip and its image. One that no longer
            holds counts, whether it is named or not.
        at: when it leaves, with its zone.
    """
    look = _Look(case, policy, rules, consents, at)
    look.rules_of_regions()
    look.consents_of_people()
    return Verdict(
        tuple(look.checks), tuple(dict.fromkeys(look.missing)), tuple(look.held), min(look.ends, default=None)
    )


LACKS = ("missing", "outdated", "unknown", "of another file", "refused")
"""How the result of a check begins that speaks against."""


class _Look:
    """What one judgement has found so far. `asked`: what rules ask of consents; `held`: consents that hold."""

    def __init__(
        self, case: Case, policy: HousePolicy, rules: Rules, consents: Mapping[str, Consent], at: datetime
    ) -> None:
        self.case, self.policy, self.rules, self.consents, self.at = case, policy, rules, consents, at
        self.people = [name for one in policy.people for name in (one.name, one.identity)]
        self.regions = tuple(case.regions or policy.regions)
        self.purposes = tuple(case.purposes or policy.purposes)
        self.checks: list[Check] = []
        self.missing: list[str] = []
        self.held: list[str] = []
        self.ends: list[datetime] = []
        self.asked: dict[Requirement, Rule] = {}

    def note(self, rule: str, result: str, evidence: str = "") -> None:
        self.checks.append(Check(rule=rule, result=result, evidence=evidence))

    def lacks(self, rule: str, result: str, why: str, remedy: str) -> None:
        self.note(rule, result, why)
        self.missing.append(f"{why} {remedy}")

    # Rules

    def rules_of_regions(self) -> None:
        self.note("rules", "read", f"sha256 {self.rules.sha256}")
        if not self.regions:
            self.note("regions", "not asked", "Neither the job nor the policy names a region.")
        seen = set[str]()
        for region in self.regions:
            if not self.rules.knows(region):
                self.unknown(region)
            for row in self.rules.of(region):
                if row.id not in seen:
                    seen.add(row.id)
                    self.row(row, [region, row.region])

    def unknown(self, region: str) -> None:
        """A region of which the table says nothing."""
        approved = self.rules.approval(self.at, self.people, regions=[region])
        if approved is None:
            why = f"No rule of the table is about {region}."
            self.lacks(f"region:{region}", "missing", why, _approve(region))
        else:
            self.ends.append(approved.expires)
            self.note(f"region:{region}", "approved", approved.words)

    def row(self, row: Rule, regions: Sequence[str]) -> None:
        name = f"rule:{row.id}"
        outdated = row.outdated(self.at, self.policy.rules_days)
        if outdated is not None:
            approved = self.rules.approval(self.at, self.people, regions=regions)
            if approved is None:
                why = f"The rule {row.id} of {row.region} cannot be relied on: {outdated}."
                self.lacks(name, "outdated", why, _approve(row.region))
                return
            self.ends.append(approved.expires)
            self.note(name, "approved", f"{outdated}; {approved.words}")
        elif (day := row.good_until(self.policy.rules_days)) is not None:
            self.ends.append(datetime(day.year, day.month, day.day, tzinfo=UTC))
        if not row.in_force(self.at):
            self.note(name, "not in force", f"It begins on {row.begins}.")
            return
        beside = self.beside(row)
        if beside is not None:
            self.note(name, "not about this", beside)
            return
        waived = self.rules.approval(self.at, self.people, rule=row.id)
        if waived is not None:
            self.ends.append(waived.expires)
            self.note(name, "approved", waived.words)
            return
        self.requirements(row)

    def beside(self, row: Rule) -> str | None:
        """Why a rule is not about this result."""
        if row.scope.modes and self.case.mode not in row.scope.modes:
            return f"It is about {', '.join(row.scope.modes)}, and this is {self.case.mode}."
        kinds = self.kinds()
        if row.scope.kinds and kinds and not kinds & set(row.scope.kinds):
            return f"It is about {', '.join(row.scope.kinds)}, and this is {', '.join(sorted(kinds))}."
        return None

    def kinds(self) -> set[str]:
        """What the result is; empty where nobody has said."""
        if self.case.kind is not None:
            return {self.case.kind}
        told = {one.casefold() for one in self.purposes}
        return told if told <= set(get_args(Kind)) else set()

    def requirements(self, row: Rule) -> None:
        lacking = []
        for one in row.requires:
            if one in _OF_MARKS:
                if not _has(one, self.case.marks):
                    lacking.append(one)
            else:
                self.asked.setdefault(one, row)
        of_marks = [one for one in row.requires if one in _OF_MARKS]
        if of_marks and not lacking:
            told = f"{row.instrument}: {', '.join(of_marks)}"
            self.note(f"rule:{row.id}", "kept", f"{told}; the file has: {_carried(self.case.marks)}")
        for one in lacking:
            what, remedy = _OF_MARKS[one]
            why = f"The rule {row.id} of {row.region} asks for {what}, and the file has none."
            self.lacks(f"rule:{row.id}", f"missing: {one}", why, remedy)

    # Consents

    def consents_of_people(self) -> None:
        for known in self.case.consent_ids:
            if known not in self.consents:
                self.lacks(f"consent:{known}", "unknown", f"There is no consent {known}.", _ADD)
        covered = set[str]()
        people: dict[tuple[str, str], list[Consent]] = {}
        assets = [one for one in (self.case.clip, self.case.image) if one is not None]
        for key, consent in self.consents.items():
            if consent.asset in assets:
                people.setdefault((consent.asset, consent.subject.id), []).append(consent)
            elif key in self.case.consent_ids:
                why = f"The consent {key} is about another file than this result's clip and image."
                self.lacks(f"consent:{key}", "of another file", why, "Name a consent for the very files.")
        for (asset, _), given in people.items():
            if self.person(given):
                covered.add(asset)
        self.needed(covered)
        self.of_rules()

    def person(self, given: Sequence[Consent]) -> bool:
        """Whether one of the consents of a person for a file allows the use."""
        use = Use(self.regions, self.purposes, tuple(self.case.media))
        judged = [(one.allows(use, self.at, self.case.used.get(one.id, 0)), one) for one in given]
        reasons, best = min(judged, key=lambda pair: (len(pair[0]), pair[1].id not in self.case.consent_ids))
        name = f"consent:{best.id}"
        if reasons:
            why = f"The consent {best.id} does not allow this. {' '.join(reasons)}"
            self.lacks(name, "refused", why, "Have the person agree to this use, or take another clip or image.")
            return False
        self.held.append(best.id)
        if (end := best.ends) is not None:
            self.ends.append(end)
        owed = f"; owed: {', '.join(best.duties)}" if best.duties else ""
        self.note(name, "allows", f"document {best.document_sha256}{owed}")
        return True

    def needed(self, covered: set[str]) -> None:
        """Performer and depicted person have agreed, where policy or a rule asks for it."""
        if self.policy.consents:
            who, rule = "The policy", "consents"
        elif "consent" in self.asked:
            row = self.asked["consent"]
            who, rule = f"The rule {row.id} of {row.region}", f"rule:{row.id}"
        else:
            self.note("consents", "not asked", "Neither the policy nor a rule asks for them.")
            return
        for asset, whose in ((self.case.clip, "the clip's performer"), (self.case.image, "the person in the image")):
            if asset is None:
                why = f"{who} asks for the consent of {whose}, and nobody knows which file it was."
                self.lacks(rule, "missing: consent", why, "Make the result anew from files that are kept.")
            elif asset not in covered:
                why = f"{who} asks for the consent of {whose}, and none allows this (sha256:{asset})."
                self.lacks(rule, "missing: consent", why, _ADD)
            else:
                self.note(rule, "kept", f"the consent of {whose}")

    def of_rules(self) -> None:
        """What rules ask of the consents that hold."""
        held = [self.consents[one] for one in self.held]
        for one, tell, what, remedy in _OF_CONSENTS:
            row = self.asked.get(one)
            if row is None:
                continue
            lacking = [consent.id for consent in held if not tell(consent)]
            name = f"rule:{row.id}"
            if lacking:
                why = f"The rule {row.id} of {row.region} asks for {what}; not so: {', '.join(lacking)}."
                self.lacks(name, f"missing: {one}", why, remedy)
            else:
                self.note(name, f"kept: {one}", ", ".join(self.held) or "no consent is known")


_ADD = "`wanimate consent add` takes one in."
_OF_MARKS: dict[str, tuple[str, str]] = {
    "label": ("a visible label", "Make it with a label."),
    "label-eu": ("the visible label of the EU", "Make it with the label eu."),
    "label-china": ("the visible label of China", "Make it with the label china."),
    "watermark": ("an invisible watermark", "Mark it with one."),
    "metadata": ("metadata that tell how it was made", "Mark it with metadata."),
    "aigc": ("the metadata key AIGC", "Mark it with metadata."),
    "signed": ("signed metadata (C2PA)", "Sign it."),
    "latent": ("a watermark or signed metadata", "Mark it with a watermark."),
}
"""Requirement -> what it is, and what to do."""
_OF_CONSENTS: tuple[tuple[Requirement, Callable[[Consent], bool], str, str], ...] = (
    ("heirs", lambda one: not one.subject.deceased or one.by == "heirs", "the heirs' consent for a dead person", _ADD),
    ("uses-described", lambda one: bool(one.uses_described.strip()), "a description of the uses", "Describe them in it."),
    (
        "represented", lambda one: one.represented_by != "none", "counsel or a union on the performer's side",
        "Have the performer represented.",
    ),
)  # fmt: skip


def _approve(region: str) -> str:
    return f"A named person may approve it: `wanimate rules approve {region} --name NAME --reason WHY`."


def _has(requirement: str, marks: Marks) -> bool:
    kinds = marks.label.split("+")
    return {
        "label": marks.label != "none", "label-eu": "eu" in kinds, "label-china": "china" in kinds,
        "watermark": marks.watermark, "metadata": marks.metadata, "aigc": marks.aigc, "signed": marks.signed,
        "latent": marks.watermark or marks.signed,
    }[requirement]  # fmt: skip


def _carried(marks: Marks) -> str:
    names = [name for name in ("watermark", "metadata", "aigc", "signed") if getattr(marks, name)]
    return ", ".join([f"label {marks.label}", *names])
