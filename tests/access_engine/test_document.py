from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.access_engine import document as documents
from libs.access_engine.__main__ import main
from libs.access_engine.document import DocumentError, parse_document

POLICY = """
roles:
  player:
    allow: ["wallet:read:own"]
  support:
    inherits: [player]
    allow:
      - "wallet:read:tenant"
      - {permission: "wallet:freeze:tenant", level: 2, if: {object.status: {eq: open}}}
grants:
  - {id: g1, tenant: acme, subject: ben, author: anna, allow: "wallet:read:w1", until: 2026-06-01T00:00:00Z}
catalogue:
  wallet: [read, freeze]
subjects:
  anna: {tenant: acme, roles: [support], level: 1}
  ben: {tenant: acme}
objects:
  w1: {owner: zoe, tenant: acme, attributes: {status: open}}
tests:
  - name: support reads and does not freeze without a second factor
    as: anna
    allowed: ["wallet:read w1"]
    denied: ["wallet:freeze w1", "wallet:read"]
  - name: a grant ends
    as: ben
    at: 2026-06-01T00:00:00Z
    denied: ["wallet:read w1"]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def without(path: Path, text: str, instead: str = "") -> Path:
    assert text in path.read_text()
    path.write_text(path.read_text().replace(text, instead))
    return path


class TestTestCommand:
    def test_all_pass(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["test", str(file)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 0 failed"

    def test_one_fails_and_says_why(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        without(file, ", level: 2")
        assert main(["test", str(file)]) == 1
        assert capsys.readouterr().out.splitlines() == [
            "FAIL support reads and does not freeze without a second factor",
            "     anna wallet:freeze w1: wanted denied, but is",
            "       allowed: a rule allows it, and none denies it",
            "         wins: allow wallet:freeze:tenant if {'object.status': {'eq': 'open'}} (support): it applies",
            "ok   a grant ends",
            "1 passed, 1 failed",
        ]

    @pytest.mark.parametrize(
        ("text", "instead", "told"),
        [
            ("as: ben", "as: bob", "there is no subject 'bob', at tests[1].as"),
            ("wallet:freeze w1", "wallet:freeze w2", "there is no object 'w2', at tests[0].denied[0]"),
            ("wallet:freeze w1", "wallet:* w1", "names one resource and one action"),
            ("level: 2", "levle: 2", "a rule has no 'levle', but permission, tenant"),
            ("inherits: [player]", "inherits: [pleyer]", "inherits from 'pleyer', which does not exist"),
            ("inherits:", "extends:", "'extends' is not known here, but inherits, allow, deny, at roles.support"),
            ("{eq: open}", "{equals: open}", "'equals' is no operator"),
            ('denied: ["wallet:read w1"]', "", "could not fail, at tests[1]"),
            ("  player:\n", "  player:\n    allow: []\n", "'allow' is there twice"),
            ("roles:", "roles: [", "error"),
            (POLICY, "{}", "there are no tests in it"),
            (POLICY, "[" * 100_000, "error"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_a_file_that_is_wrong(
        self, file: Path, capsys: pytest.CaptureFixture[str], text: str, instead: str, told: str
    ) -> None:
        assert main(["test", str(without(file, text, instead))]) == 2
        assert told in capsys.readouterr().err

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        assert main(["test", str(tmp_path / "gone.yaml")]) == 2


class TestOtherCommands:
    def test_lint(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["lint", str(file)]) == 1
        found = capsys.readouterr().out
        assert "role support" not in found.replace("role player", "")
        assert "grant g1: allow wallet:read:w1" in found

    def test_explain(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explain", str(file), "anna", "wallet:read w1"]) == 0
        assert "wins: allow wallet:read:tenant (support)" in capsys.readouterr().out
        assert main(["explain", str(file), "ben", "wallet:read w1", "--at", "2026-06-01T00:00:00Z"]) == 1
        assert main(["explain", str(file), "zoe", "wallet:read w1"]) == 2

    def test_who_can(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["who-can", str(file), "wallet:read w1"]) == 0
        assert capsys.readouterr().out.splitlines()[:2] == ["role player: own", "role support: tenant"]
        assert main(["who-can", str(file), "wallet:melt w1"]) == 1
        assert capsys.readouterr().out == "nobody\n"

    def test_diff(self, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        new = tmp_path / "new.yaml"
        new.write_text(POLICY.replace("wallet:read:own", "wallet:read:tenant"))
        assert main(["diff", str(file), str(file)]) == 0
        assert main(["diff", str(file), str(new)]) == 1
        assert capsys.readouterr().out.splitlines()[-1] == "wider    player: wallet:read  own → tenant"


class TestParseDocument:
    def test_the_one_in_the_documentation(self) -> None:
        text = (documents.__doc__ or "").split("\n\n")[1]
        document = parse_document(yaml.safe_load(text))
        assert len(document.tests) == 1
        document.policy()

    @pytest.mark.parametrize(
        "data",
        [
            None,
            [],
            {"rolls": {}},
            {"roles": []},
            {"roles": {"a": {"allow": "wallet:read:own"}}},
            {"roles": {"a": {"inherits": [1]}}},
            {"roles": {1: {}}},
            {"subjects": {"a": {"level": "2"}}},
            {"subjects": {"a": {"roles": "admin"}}},
            {"objects": {"w": {"owner": ["a"]}}},
            {"grants": [{"id": "g", "tenant": "t", "subject": "s"}]},
            {"grants": [{"id": "g", "tenant": "t", "subject": "s", "allow": "a:b:own", "deny": "a:b:own"}]},
            {"grants": [{"tenant": "t", "subject": "s", "allow": "a:b:own"}]},
            {"catalogue": {"wallet": "read"}},
        ],
        ids=str,
    )
    def test_refuses(self, data: Any) -> None:
        with pytest.raises(DocumentError):
            parse_document(data)
