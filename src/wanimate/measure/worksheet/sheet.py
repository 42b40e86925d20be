"""The adoption sheet itself: lines in a fixed order, each with where it comes from, as Markdown and as JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from wanimate.errors import InputError, OutputError, setting
from wanimate.measure.worksheet.answers import PILOTS, Answers, Pilot, Question, answers_of
from wanimate.measure.worksheet.found import Certificate, Flow, Machine
from wanimate.measure.worksheet.pace import MODES, Pace
from wanimate.media.files import AtomicFile, json_bytes, read_marked, sha256
from wanimate.media.lock import NameLock
from wanimate.media.places import check_file

FORMAT, VERSION = "wanimate-worksheet", 1
Mark = Literal["measured", "found", "asked", "derived"]
MARKS: Mapping[Mark, str] = {
    "measured": "by a run on this machine",
    "found": "read from this machine, from files or settings",
    "asked": "said by people; empty until they have",
    "derived": "a measured value times an asked one",
}
UNANSWERED = "_to be answered_"
_GIB = 2**30
_SPEED, _PILOT = "Speed and cost", "Pilot, the least risk first"
_RISKS = ("low", "middle", "high")
_QUESTIONS = {
    "synthetic_talent_clause": "Clause on synthetic talent in contracts",
    "regions": "Regions in which results are shown",
    "visible_label": "Design of the visible label",
    "approval_roles": "Who approves, in which roles",
    "consent_template": "Template of consents",
    "retention": "How long inputs, results and records are kept",
    "watermark_key_holder": "Who holds the key of the invisible watermark",
    "signing_certificate": "Who looks after the signing certificate",
    "rules_review": "Who reviews the table of rules, and when",
}


@dataclass(frozen=True)
class Line:
    """One line. `key`: the same in every sheet, and what an answers file calls it. `value`: None where nobody has answered.
    `how`: where it comes from, or how far it is agreed."""

    section: str
    key: str
    what: str
    mark: Mark
    value: str | float | None
    how: str = ""


@dataclass(frozen=True)
class Facts:
    """What the program knows by itself. `paces`: of the modes that were run. `rules`: the day on which the oldest row of the
    rules table was checked; None where there is no table. `fps`: the studio's rate."""

    machine: Machine
    paces: Sequence[Pace]
    flow: Flow | None
    certificate: Certificate | None
    rules: str | None
    fps: float = 24.0


def lines(facts: Facts, answers: Answers) -> list[Line]:
    """Every line of the sheet, in its order."""
    return [
        *_machine(facts, answers), *_speed(facts, answers), *_preprocessing(facts, answers), *_pilot(answers),
        *_guideline(facts, answers),
    ]  # fmt: skip


def markdown(found: Sequence[Line]) -> str:
    """The sheet for people."""
    missing = [line for line in found if line.value is None]
    text = [
        "# Adoption sheet", "",
        f"{len(found)} lines, {len(missing)} to be answered. Answers go into a file: `wanimate worksheet --answers FILE`.", "",
        "| mark | the line was |", "|---|---|", *(f"| {mark} | {words} |" for mark, words in MARKS.items()), "",
    ]  # fmt: skip
    for section in dict.fromkeys(line.section for line in found):
        rows = [line for line in found if line.section == section]
        text += [f"## {section}", "", *(_pilots(rows) if section == _PILOT else _rows(rows)), ""]
    return "\n".join(text)


def _rows(found: Sequence[Line]) -> Iterator[str]:
    yield from ("| what | value | mark | note |", "|---|---|---|---|")
    for line in found:
        yield f"| {_cell(line.what)} | {_value(line)} | {line.mark} | {_cell(line.how)} |"


def _pilots(found: Sequence[Line]) -> Iterator[str]:
    """A row for each kind of work."""
    yield from ("| kind of work | risk | owner | date | done when | mark | note |", "|---|---|---|---|---|---|---|")
    for first in range(0, len(found), 4):
        of = found[first : first + 4]
        name = of[0].what.rpartition(":")[0]
        yield f"| {_cell(name)} | {' | '.join(map(_value, of))} | {of[0].mark} | {_cell(of[0].how)} |"


def _value(line: Line) -> str:
    if line.value is None:
        return UNANSWERED
    return _cell(line.value if isinstance(line.value, str) else f"{line.value:g}")


def write(out: Path, facts: Facts, answers: Answers, overwrite: bool = False) -> list[Line]:
    """Write the sheet and, beside it, the same as JSON. Returns its lines.

    Raises:
        OutputError: a file that is not an earlier sheet has one of the names, or somebody has changed it by hand.
    """
    if out.suffix.lower() != ".md":
        raise OutputError("out", out, "the sheet is Markdown", "Give it a name that ends in .md.")
    beside = out.with_suffix(".json")
    with NameLock(out):
        ours = read_marked(beside, FORMAT)
        for path in (out, beside):
            check_file("out", path, ours is not None, overwrite)
        if ours is not None and not overwrite and out.exists() and sha256(out) != ours.get("markdown_sha256"):
            rule = "it was changed by hand since it was written, and that would be lost"
            remedy = f"Put answers into a file for {setting('answers')}, or allow it with {setting('overwrite')}."
            raise OutputError("out", out, rule, remedy)
        found = lines(facts, answers)
        text = markdown(found).encode()
        told = {
            "format": FORMAT, "version": VERSION, "markdown_sha256": hashlib.sha256(text).hexdigest(),
            "machine": asdict(facts.machine), "lines": [asdict(line) for line in found],
            "paces": [pace.to_dict() for pace in facts.paces], "answers": answers.model_dump(mode="json", exclude_none=True),
        }  # fmt: skip
        with AtomicFile(beside) as file:
            file.write(json_bytes(told, 1))
        with AtomicFile(out) as file:
            file.write(text)
    return found


def earlier(out: Path) -> tuple[Answers, tuple[Pace, ...], dict[str, Any]]:
    """Answers, measured runs and machine of a sheet that was written before; empty where there is none."""
    told = read_marked(out.with_suffix(".json"), FORMAT)
    if told is None:
        return Answers(), (), {}
    try:
        paces = tuple(Pace(**{**one, "size": tuple(one["size"])}) for one in told["paces"])
        return answers_of(told["answers"]), paces, dict(told["machine"])
    except (KeyError, TypeError, ValueError, InputError) as error:
        rule = f"{out.with_suffix('.json').name} beside it is damaged ({error})"
        raise InputError("out", out, rule, "Remove it, and give the answers anew.") from error


def _machine(facts: Facts, answers: Answers) -> Iterator[Line]:
    section, here = "Machine", facts.machine
    yield Line(section, "machine.gpu", "GPU", "found", here.gpu)
    yield Line(section, "machine.gpu_memory", "Memory of the GPU", "found", here.memory)
    yield Line(section, "machine.driver", "Driver", "found", here.driver or "none that can be told")
    yield Line(section, "machine.host_memory", "Memory of the host", "found", here.host)
    price, currency = answers.gpu.price_per_hour, answers.gpu.currency
    yield Line(section, "gpu.price_per_hour", "Price of the machine per hour", "asked", price)
    yield Line(section, "gpu.currency", "Currency", "asked", currency)


def _speed(facts: Facts, answers: Answers) -> Iterator[Line]:
    for mode in MODES:
        pace = next((one for one in facts.paces if one.mode == mode), None)
        name = mode.capitalize()
        price, currency = answers.gpu.price_per_hour, answers.gpu.currency or ""
        seconds, memory, what = (
            f"{name}: seconds for a second of video",
            f"{name}: peak memory",
            f"{name}: cost of a second",
        )
        if pace is None:
            yield Line(_SPEED, f"{mode}.seconds", seconds, "asked", None, "no run was made")
            yield Line(_SPEED, f"{mode}.memory", memory, "asked", None, "no run was made")
            yield Line(_SPEED, f"{mode}.cost", what, "derived", None, "needs a run and a price")
            continue
        took, once = pace.a_second(facts.fps), f"{name}: seconds once a job"
        yield Line(
            _SPEED, f"{mode}.seconds", f"{seconds}, at {facts.fps:g} frames/s", "measured", _round(took), _how(pace)
        )
        yield Line(_SPEED, f"{mode}.once", once, "measured", _round(pace.once), "loading, encoding the character")
        beside = "" if pace is facts.paces[0] else f"{facts.paces[0].mode} ran in the same process before"
        yield Line(_SPEED, f"{mode}.memory", memory, "measured", _peak(pace), beside)
        cost = None if price is None else f"{took / 3600 * price:.3g} {currency}".strip()
        by = "seconds measured, times the price asked; without what comes once a job" if cost else "needs a price"
        yield Line(_SPEED, f"{mode}.cost", what, "derived", cost, by)


def _how(pace: Pace) -> str:
    width, height = pace.size
    made = f"{pace.frames} frames of {width}x{height}, {pace.steps} steps, speed {pace.speed}, {pace.checkpoint}"
    return f"{made} on {pace.device}, {pace.on}; {pace.seconds / pace.frames:.3g} s a frame"


def _peak(pace: Pace) -> str:
    host = f"host {pace.host / _GIB:.1f} GiB"
    return host if pace.gpu is None else f"GPU {pace.gpu / _GIB:.1f} GiB, {host}"


def _preprocessing(facts: Facts, answers: Answers) -> Iterator[Line]:
    section, asked, flow = "Preprocessing", answers.preprocessing, facts.flow
    yield Line(section, "preprocessing.flow", "Who makes guides, and where", "asked", asked.flow)
    for pace in facts.paces:
        took = _round(pace.preprocessing / pace.frames * facts.fps)
        what = f"{pace.mode.capitalize()}: of these seconds, before the network"
        yield Line(
            section, f"{pace.mode}.preprocessing", what, "measured", took, "finding the performer, drawing guides"
        )
    if flow is None:
        yield Line(
            section, "preprocessing.files", "Files of a guides folder", "asked", asked.files, "no folder was given"
        )
        masks = asked.hand_made_masks
        yield Line(section, "preprocessing.hand_made_masks", "Are masks made by hand?", "asked", masks)
        return
    yield Line(
        section,
        "preprocessing.files",
        "Files of a guides folder",
        "found",
        ", ".join(flow.files),
        f"{flow.folder}, {flow.mode}",
    )
    yield Line(section, "preprocessing.backend", "How the performer was found", "found", flow.backend, flow.folder)
    mask = "no" if flow.mask is None else f"yes: {flow.mask}"
    how = "an animation has none" if flow.mode == "animation" else flow.folder
    yield Line(section, "preprocessing.hand_made_masks", "Are masks made by hand?", "found", mask, how)


def _pilot(answers: Answers) -> Iterator[Line]:
    """Kinds of work, the least risk first."""
    for number, one in enumerate(sorted(answers.pilot or PILOTS, key=_risk), 1):
        key = f"pilot.{number}"
        proposed = "" if answers.pilot else "proposed"
        yield Line(_PILOT, f"{key}.risk", f"{one.asset_class}: risk", "asked", one.risk, proposed)
        for field, what in (("owner", "owner"), ("date", "date"), ("exit_criteria", "done when")):
            yield Line(_PILOT, f"{key}.{field}", f"{one.asset_class}: {what}", "asked", getattr(one, field))


def _risk(pilot: Pilot) -> tuple[int, str]:
    return _RISKS.index(pilot.risk), pilot.asset_class


def _guideline(facts: Facts, answers: Answers) -> Iterator[Line]:
    section, signed = "Guideline and law", facts.certificate
    for key, what in _QUESTIONS.items():
        question: Question | None = getattr(answers.guideline, key)
        yield Line(
            section, f"guideline.{key}", what, "asked", None if question is None else question.answer, _state(question)
        )
        if key == "signing_certificate":
            name, expires = (
                ("none: results are not signed", "none") if signed is None else (signed.name, signed.expires)
            )
            if signed is not None and signed.problem:
                name = expires = f"not told: {signed.problem}"
            how = (
                ""
                if signed is None
                else f"{signed.file}{', a test certificate: only this machine trusts it' if signed.test else ''}"
            )
            yield Line(section, "certificate.name", "Signing certificate", "found", name, how)
            yield Line(section, "certificate.expires", "Signing certificate expires", "found", expires)
        if key == "rules_review":
            checked = facts.rules or "there is no table of rules"
            yield Line(section, "rules.checked", "Oldest check of a rule in the table", "found", checked)


def _state(question: Question | None) -> str:
    if question is None:
        return "open"
    by = "" if question.by is None else f", {question.by}"
    return f"{question.state}{by}{'' if question.on is None else f', {question.on}'}"


def _round(value: float) -> float:
    return float(f"{value:.3g}")


def _cell(text: str) -> str:
    """A text as it is in a cell of a table: one line, and nothing that Markdown or HTML takes for its own."""
    shown = " ".join(text.split()).replace("\\", "\\\\")
    for sign in "|*_`[]<>":
        shown = shown.replace(sign, f"\\{sign}")
    return shown
