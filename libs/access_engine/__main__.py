"""Policies as files (see `document.py`): what they say, whether they hold what their tests say, what is wrong in them.

    python -m libs.access_engine test policy.yaml …
    python -m libs.access_engine lint policy.yaml …
    python -m libs.access_engine explain policy.yaml anna "wallet:read w1" [--at 2026-03-01T12:00:00Z]
    python -m libs.access_engine who-can policy.yaml "wallet:read w1"
    python -m libs.access_engine diff old.yaml new.yaml

Ends with 0 if all is well (`explain`: if it is allowed; `diff`: if nothing differs), with 1 if something is not,
and with 2 if a file could not be read or understood. Needs PyYAML, which nothing else here does.
"""

import argparse
import sys
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from libs.access_engine.condition import parse_instant
from libs.access_engine.diff import diff
from libs.access_engine.document import PolicyDocument, PolicyTest, parse_document, parse_question
from libs.access_engine.explain import explain, who_can
from libs.access_engine.lint import lint
from libs.access_engine.policy import Policy

MAX_BYTES = 10 * 2**20


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: of two `deny`s, YAML takes the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except (ValueError, OSError, yaml.YAMLError, RecursionError) as error:
        print(f"error: {error or 'nested too deep'}", file=sys.stderr)  # noqa: T201
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m libs.access_engine", description="Policies as files.")
    commands = parser.add_subparsers(required=True)

    def add(
        name: str, command: Callable[[argparse.Namespace], int], about: str, *names: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=about)
        for each in names:
            sub.add_argument(each)
        sub.set_defaults(command=command)
        return sub

    add("test", _test, "run the tests in policies").add_argument("files", nargs="+")
    add("lint", _lint, "say what is probably wrong").add_argument("files", nargs="+")
    asking = add("explain", _explain, "why somebody may or may not", "file", "subject", "question")
    asking.add_argument("--at", type=parse_instant, help="an instant; now, if it is not given")
    add("who-can", _who_can, "which roles, grants and subjects may", "file", "question")
    add("diff", _diff, "what a new policy changes for whom", "old", "new")
    return parser


def _read(file: str) -> PolicyDocument:
    path = Path(file)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file} is larger than {MAX_BYTES} bytes")
    try:
        return parse_document(yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader))  # noqa: S506  (a safe one)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _test(options: argparse.Namespace) -> int:
    passed = failed = 0
    for file in options.files:
        document = _read(file)
        policy = document.policy()
        if not document.tests:
            raise ValueError(f"{file}: there are no tests in it")
        for test in document.tests:
            wrong = list(_failures(policy, test))
            passed, failed = passed + (not wrong), failed + bool(wrong)
            _say(f"{'FAIL' if wrong else 'ok  '} {test.name}")
            for line in wrong:
                _say(f"     {line}")
    _say(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def _failures(policy: Policy, test: PolicyTest) -> list[str]:
    lines = []
    for question in test.questions:
        found = explain(policy, test.subject, question.resource, question.action, question.obj, test.at)
        if found.allowed is not question.expected:
            wanted = "allowed" if question.expected else "denied"
            lines.append(f"{test.subject.id} {question.text}: wanted {wanted}, but is")
            lines += [f"  {line}" for line in str(found).splitlines()]
    return lines


def _lint(options: argparse.Namespace) -> int:
    count = 0
    for file in options.files:
        document = _read(file)
        authors = {(subject.tenant_id, subject.id): subject for subject in (document.subjects or {}).values()}
        findings = lint(document.roles, document.grants, catalogue=document.catalogue, authors=authors)
        for finding in findings:
            _say(f"{file}: {finding}")
        count += len(findings)
    _say(f"{count} found" if count else "nothing found")
    return 1 if count else 0


def _explain(options: argparse.Namespace) -> int:
    document = _read(options.file)
    subjects = document.subjects or {}
    if options.subject not in subjects:
        raise ValueError(f"there is no subject {options.subject!r} in {options.file}")
    question = parse_question(options.question, document.objects or {}, "the question")
    at: datetime | None = options.at
    subject = subjects[options.subject]
    found = explain(document.policy(), subject, question.resource, question.action, question.obj, at)
    _say(str(found))
    return 0 if found.allowed else 1


def _who_can(options: argparse.Namespace) -> int:
    document = _read(options.file)
    question = parse_question(options.question, document.objects or {}, "the question")
    obj = question.obj if " " in question.text else None
    subjects = (document.subjects or {}).values()
    found = who_can(document.policy(), question.resource, question.action, obj, subjects=subjects)
    for name, reach in found.roles.items():
        _say(f"role {name}: {reach.name.lower() if reach else 'some, by id or condition'}")
    for grant in found.grants:
        _say(f"grant {grant.id}: {grant.subject_id} of {grant.tenant_id}, {grant.rule}")
    for subject in found.subjects:
        _say(f"subject {subject.id} of {subject.tenant_id}")
    somebody = bool(found.roles or found.grants or found.subjects)
    if not somebody:
        _say("nobody")
    return 0 if somebody else 1


def _diff(options: argparse.Namespace) -> int:
    found = diff(_read(options.old).policy(), _read(options.new).policy())
    _say(str(found))
    return 1 if found else 0


def _say(line: str) -> None:
    print(line)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
