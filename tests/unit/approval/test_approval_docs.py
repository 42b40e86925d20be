"""docs/approval.md says what the program does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from consents_made import NOW

from wanimate.approval.consents import consent_of
from wanimate.approval.policy import HousePolicy
from wanimate.approval.rules import Rules
from wanimate.approval.terms import OPERATORS, Use

PAGE = (Path(__file__).parents[3] / "docs" / "approval.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def rows(heading: str) -> list[list[str]]:
    """Cells of the table with this first heading, without backquotes."""
    found = re.search(rf"^\| {heading} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def test_the_table_has_the_packaged_rows() -> None:
    told = [(row[0], row[1], row[2], row[4].split(", ")) for row in rows("rule")]
    assert told == [(one.id, one.region, str(one.begins or ""), list(one.requires)) for one in Rules.read().rows]


def test_the_example_of_a_consent_can_be_used() -> None:
    found = consent_of(json.loads(block("json")))
    assert found.allows(Use(("US-NY",), ("ad",), ("video",)), NOW) == []
    assert found.allows(Use(("US-NY",), ("politics",), ("video",)), NOW)


def test_the_example_of_a_rules_file_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(block("toml"), encoding="utf-8")
    found = Rules.read(path)
    assert found.knows("JP")
    assert found.approval(NOW, (), ["KR"]) is not None


def test_every_operator_and_every_key_of_the_policy_is_told() -> None:
    assert {row[0]: tuple(row[1].split(", ")) for row in rows("constraint")} == {
        left: tuple(sorted(known, key=_ORDER.index)) for left, known in OPERATORS.items()
    }
    table = PAGE[PAGE.index("## Policy") :].partition("\n## ")[0]
    keys = set(
        re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `")))
    )
    assert keys == set(HousePolicy.model_fields)


_ORDER = ("eq", "neq", "lt", "lteq", "gt", "gteq", "isA", "isPartOf", "isAnyOf", "isNoneOf")
