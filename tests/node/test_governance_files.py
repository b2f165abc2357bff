"""Taxonomy and policy from files of people: what is read, and that every error names file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from comity.node.governance_files import (
    POLICY_TEMPLATE,
    RULES_TEMPLATE,
    TAXONOMY_TEMPLATE,
    read_policy,
    read_rules,
    read_taxonomy,
)
from comity.protocol.errors import ConfigError
from comity.protocol.governance import AssetRule, ColumnClass
from comity.protocol.limits import STRING_BYTES_MAX


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "taxonomy.toml").write_text(TAXONOMY_TEMPLATE)
    (tmp_path / "policy.toml").write_text(POLICY_TEMPLATE)
    (tmp_path / "policy.cedar").write_text(RULES_TEMPLATE)
    return tmp_path


def test_the_templates_are_sound(site: Path) -> None:
    taxonomy = read_taxonomy(site / "taxonomy.toml")
    source = read_policy(site / "policy.toml")
    assert source.problems(taxonomy) == ()
    source.require_sound()
    assert source.name == "main"
    assert [rule.pattern for rule in source.policy.assets] == ["*/patients", "*/released"]


def test_every_reading_has_a_salt_of_its_own(site: Path) -> None:
    assert read_taxonomy(site / "taxonomy.toml").salt != read_taxonomy(site / "taxonomy.toml").salt
    assert read_policy(site / "policy.toml").policy.salt != read_policy(site / "policy.toml").policy.salt


def test_columns_keep_their_order_in_either_form(site: Path) -> None:
    wanted = (ColumnClass("z.col", "plain"), ColumnClass("a", "quasi_identifier"))
    table = '{ "z.col" = "plain", a = "quasi_identifier" }'
    listed = '[{ name = "z.col", column_class = "plain" }, { name = "a", column_class = "quasi_identifier" }]'
    for columns in (table, listed):
        (site / "policy.toml").write_text(
            f'rules = "policy.cedar"\n[[assets]]\npattern = "*/x"\ndata_class = "x"\ncolumns = {columns}\n'
        )
        assert read_policy(site / "policy.toml").policy.assets == (AssetRule("*/x", "x", wanted),)


TAXONOMY_ERRORS = [
    ("", "classes: missing"),
    ("classes = 1\n", "classes: not 1 to 256 tables"),
    ('[[classes]]\nname = "a"\n', "classes[0].weight: missing"),
    ('[[classes]]\nname = "a"\nweigth = 1\n', ":3: classes[0].weigth: unknown key; did you mean weight?"),
    ('[[classes]]\nname = "a"\nweight = 1000001\n', ":3: classes[0].weight: not parts per million"),
    ('[[classes]]\nname = "a"\nweight = 0.5\n', ":3: classes[0].weight: not parts per million"),
    ('[[classes]]\nname = "A"\nweight = 1\n', ":2: classes[0].name"),
    ('[[classes]]\nname = "a"\nweight = 1\nwithin = "b"\n', ":4: classes[0].within: no class b; there are a"),
    (
        '[[classes]]\nname = "a"\nweight = 1\n[[classes]]\nname = "a"\nweight = 2\n',
        ":5: classes[1].name: a stands twice",
    ),
    ('[[classes]]\nname = "a"\nweight = 1\nissuers = ["Nobody"]\n', ":4: classes[0].issuers"),
]


@pytest.mark.parametrize(("text", "said"), TAXONOMY_ERRORS)
def test_a_wrong_taxonomy_names_line_and_key(site: Path, text: str, said: str) -> None:
    path = site / "taxonomy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as excinfo:
        read_taxonomy(path)
    assert str(excinfo.value).startswith(str(path))
    assert said in str(excinfo.value)


POLICY_ERRORS = [
    ("", "rules: missing"),
    ('rule = "policy.cedar"\n', ":1: rule: unknown key; did you mean rules?"),
    ('rules = "policy.cedar"\nweight_min = -1\n', ":2: weight_min: not parts per million"),
    ('rules = "policy.cedar"\n[[assets]]\npatern = "*/x"\n', "did you mean pattern?"),
    ('rules = "policy.cedar"\n[[assets]]\npattern = "**"\ndata_class = "x"\n', ":3: assets[0].pattern"),
    ('rules = "policy.cedar"\n[[purposes]]\nname = "Study"\n', ":3: purposes[0].name"),
    (
        'rules = "policy.cedar"\n[[assets]]\npattern = "*/x"\ndata_class = "x"\ncolumns = { a = "Not a code" }\n',
        "columns",
    ),
]


@pytest.mark.parametrize(("text", "said"), POLICY_ERRORS)
def test_a_wrong_policy_names_line_and_key(site: Path, text: str, said: str) -> None:
    path = site / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as excinfo:
        read_policy(path)
    assert str(excinfo.value).startswith(str(path))
    assert said in str(excinfo.value)


def test_rules_that_do_not_compile_are_refused_with_their_place(site: Path) -> None:
    (site / "policy.cedar").write_text(RULES_TEMPLATE + "\n@id('broken') permit(;\n")
    with pytest.raises(ConfigError, match=r"policy\.cedar:\d+:\d+"):
        read_policy(site / "policy.toml").require_sound()


def test_missing_and_endless_rules_name_their_file(site: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.cedar"):
        read_rules(site / "absent.cedar")
    (site / "policy.cedar").write_bytes(b"/" * (STRING_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="longer than"):
        read_policy(site / "policy.toml")
    (site / "policy.cedar").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_policy(site / "policy.toml")


def test_names_that_nobody_published_are_warned_of(site: Path) -> None:
    (site / "policy.cedar").write_text(
        RULES_TEMPLATE
        + '@id("o") @mode("defer") @reason("r") @needs("approval(class=data-protection-oficer)")\n'
        'forbid(principal, action == Action::"materialize", resource in DataClass::"releasd");\n'
    )
    taxonomy = read_taxonomy(site / "taxonomy.toml")
    problems = read_policy(site / "policy.toml").problems(taxonomy)
    assert {(p.severity, p.code) for p in problems} == {("warning", "name_unpublished")}
    assert {p.hint for p in problems} == {"data-protection-officer?", "released?"}
