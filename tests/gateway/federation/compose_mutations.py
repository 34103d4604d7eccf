"""Random sets of subgraphs: right ones, of which a few lines are changed, moved, copied or left out."""

import re
from collections.abc import Callable
from random import Random

from tests.gateway.federation.judges import generate
from tests.gateway.federation.test_compose import VALID, subgraphs_of

_HEAD = re.compile(r"(?:extend )?(?:type|interface|enum|input|union|scalar) (\w+)")
_DIRECTIVE = re.compile(r' @\w+(\((?:[^()"]|"[^"]*")*\))?')
_TYPE = re.compile(r": (\[?\w+)(!?)(\]?)(!?)")
_ADDED = [
    "@shareable",
    "@inaccessible",
    "@external",
    "@deprecated",
    "@authenticated",
    "@interfaceObject",
    "@extends",
    "@unheard",
    '@tag(name:"t")',
    '@override(from:"one")',
    '@override(from:"a")',
    '@override(from:"gone")',
    '@requires(fields:"name")',
    '@requires(fields:"id")',
    '@provides(fields:"name")',
    '@key(fields:"id")',
    '@key(fields:"name")',
    '@requiresScopes(scopes:[["s"]])',
    '@policy(policies:[["p"]])',
    "@cost(weight:3)",
    '@override(from:"a",label:"percent(5)")',
]
_TYPES = ["Int", "String", "ID", "P", "Size", "N", "E", "I", "U", "[String!]", "Nowhere", "Media", "User", "Product"]
_FIELD_SETS = [
    "id",
    "name",
    "id name",
    "size { w }",
    "nope",
    "id { x }",
    "",
    "id @tag",
    "... on P { id }",
    "__typename id",
]
_ARGUMENTS = ["(x: Int)", "(x: Int!)", "(x: Int = 2)", "(x: Int! = 1)"]

Sdls = dict[str, str]


def mutated(random: Random) -> Sdls:
    sdls = _valid(random)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        name = random.choice(list(sdls))
        random.choice(_MUTATIONS)(random, sdls, name)
    return sdls


def _valid(random: Random) -> Sdls:
    if random.random() < 0.5:
        return generate.supergraph(random)
    return {each.name: _by_lines(each.sdl) for each in subgraphs_of(random.choice(list(VALID.values())))}


def _by_lines(sdl: str) -> str:
    """One field a line, as `generate` writes them: enough of a parser for our table."""
    text = re.sub(r"\s+", " ", sdl) if '"""' not in sdl and "#" not in sdl else sdl
    text = re.sub(
        r" (?=(?:extend (?:type|schema|union|enum)|type|interface|union|enum|input|scalar|directive) [\w@])", "\n", text
    )
    lines = [re.sub(r"^(extend|type|schema)\n", r"\1 ", line) for line in text.split("\n")]
    return "\n".join(_spread(line) for line in lines) + "\n"


def _spread(line: str) -> str:
    match = re.match(r"((?:extend )?(?:type|interface|input) [^{]*(?:\"[^\"]*\"[^{]*)*)\{ (.*) \}$", line)
    if not match:
        return line
    fields = re.split(r" (?=\w+(?:\([^)]*\))?: )(?![^(]*\))", match[2])
    return match[1] + "{\n" + "\n".join(f"  {field}" for field in fields) + "\n}"


def _lines(sdl: str) -> tuple[list[str], list[int], list[int]]:
    """All, and where fields and heads of types are."""
    lines = sdl.split("\n")
    fields = [n for n, line in enumerate(lines) if line.startswith("  ") and line.strip()]
    return lines, fields, [n for n, line in enumerate(lines) if _HEAD.match(line)]


def _drop_a_field(random: Random, sdls: Sdls, name: str) -> None:
    lines, fields, _ = _lines(sdls[name])
    if fields:
        del lines[random.choice(fields)]
    sdls[name] = "\n".join(lines)


def _drop_a_directive(random: Random, sdls: Sdls, name: str) -> None:
    lines, fields, heads = _lines(sdls[name])
    found = [(n, match) for n in fields + heads for match in _DIRECTIVE.finditer(lines[n])]
    if found:
        n, match = random.choice(found)
        lines[n] = lines[n][: match.start()] + lines[n][match.end() :]
    sdls[name] = "\n".join(lines)


def _change_nullability(random: Random, sdls: Sdls, name: str) -> None:
    _change_a_field(random, sdls, name, lambda line: _TYPE.sub(_toggled(random), line, count=1))


def _toggled(random: Random) -> Callable[[re.Match[str]], str]:
    def toggle(match: re.Match[str]) -> str:
        named, inner, end, outer = match.groups()
        if not end or random.random() < 0.5:
            return f": {named}{inner}{end}{'' if outer else '!'}" if end else f": {named}{'' if inner else '!'}"
        return f": {named}{'' if inner else '!'}{end}{outer}"

    return toggle


def _change_a_type(random: Random, sdls: Sdls, name: str) -> None:
    chosen = random.choice(_TYPES)
    _change_a_field(random, sdls, name, lambda line: _TYPE.sub(rf": {chosen}\4", line, count=1))


def _add_an_argument(random: Random, sdls: Sdls, name: str) -> None:
    chosen = random.choice(_ARGUMENTS)
    _change_a_field(random, sdls, name, lambda line: re.sub(r"^(  \w+): ", rf"\1{chosen}: ", line))


def _change_a_field(random: Random, sdls: Sdls, name: str, change: Callable[[str], str]) -> None:
    lines, fields, _ = _lines(sdls[name])
    if fields:
        n = random.choice(fields)
        lines[n] = change(lines[n])
    sdls[name] = "\n".join(lines)


def _add_a_directive(random: Random, sdls: Sdls, name: str) -> None:
    lines, fields, heads = _lines(sdls[name])
    chosen = fields if fields and random.random() < 0.75 else heads
    if chosen:
        n, directive = random.choice(chosen), random.choice(_ADDED)
        if directive == "@deprecated" and directive in lines[n]:
            return  # the oracle takes it for repeatable
        mark = next((mark for mark in (" {", " =") if n in heads and mark in lines[n]), None)
        lines[n] = lines[n].replace(mark, f" {directive}{mark}", 1) if mark else f"{lines[n]} {directive}"
    sdls[name] = "\n".join(lines)


def _change_a_field_set(random: Random, sdls: Sdls, name: str) -> None:
    found = list(re.finditer(r'fields: "[^"]*"', sdls[name]))
    if found:
        match = random.choice(found)
        sdls[name] = f'{sdls[name][: match.start()]}fields: "{random.choice(_FIELD_SETS)}"{sdls[name][match.end() :]}'


def _copy_a_field(random: Random, sdls: Sdls, name: str) -> None:
    lines, fields, heads = _lines(sdls[name])
    above = [(n, head) for n in fields for head in heads if head < n]
    other = random.choice(list(sdls))
    if not above or other == name:
        return
    n = random.choice(above)[0]
    match = _HEAD.match(lines[max(head for head in heads if head < n)])
    assert match
    there, _, heads_there = _lines(sdls[other])
    for head in heads_there:
        if re.match(rf"(?:extend )?\w+ {match[1]}\b.*\{{$", there[head]):
            there.insert(head + 1, lines[n])
            break
    sdls[other] = "\n".join(there)


def _copy_a_type(random: Random, sdls: Sdls, name: str) -> None:
    blocks = re.findall(r"^(?:type|interface|input) \w+[^{\n]*\{\n(?:  .*\n)*\}\n", sdls[name], re.MULTILINE)
    other = random.choice(list(sdls))
    if blocks and other != name:
        sdls[other] += "\n" + random.choice(blocks)


def _extend(random: Random, sdls: Sdls, name: str) -> None:
    lines, _, heads = _lines(sdls[name])
    if heads:
        n = random.choice(heads)
        lines[n] = lines[n].removeprefix("extend ") if lines[n].startswith("extend ") else f"extend {lines[n]}"
    sdls[name] = "\n".join(lines)


_MUTATIONS = [
    _drop_a_field,
    _drop_a_directive,
    _change_nullability,
    _change_a_type,
    _add_an_argument,
    _add_a_directive,
    _add_a_directive,
    _add_a_directive,
    _change_a_field_set,
    _copy_a_field,
    _copy_a_type,
    _extend,
]
