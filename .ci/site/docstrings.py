"""Reads the project's docstrings for the site's reference: a line ``name: meaning`` becomes a table's row.

An extension of griffe. In a docstring a line that opens with names of arguments (of fields, in a class) and a
colon starts their description, which goes on in the indented lines below it. A paragraph that opens with
"Raises" or "Source" gets a heading. All else is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[2]
ENTRY = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)")
HEADED = re.compile(r"(Raises|Sources?)\b:? ?(.*)")
PAGE = re.compile(r"\bdocs/([\w/-]+)\.md\b")
CODE = re.compile(r"(?<!`)`(?:adamode\.)?(\w+)`(?!`)")
ERROR = re.compile(r"(?<!`)\b\w+(?:Error|Warning)\b")


class House(griffe.Extension):
    """Gives every object of a package a docstring that is read as ours."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Files are named as they lie in the repository."""
        public, staged = {str(name) for name in pkg.exports or ()}, Path(str(pkg.filepath)).parent
        for thing in walk(pkg):
            if isinstance(thing, griffe.Module):
                beside = ROOT / Path(str(thing.filepath)).relative_to(staged)
                inside = ROOT / "adamode" / beside.relative_to(ROOT)
                thing._filepath = beside if beside.exists() else inside
            if isinstance(thing, griffe.Attribute) and str(thing.value).startswith("_"):
                named = thing.module.members.get(str(thing.value))  # a private constant: what it stands for
                thing.value = named.value if isinstance(named, griffe.Attribute) else thing.value
            if thing.docstring is not None:
                thing.docstring = Docstring(thing, public)


def walk(thing: griffe.Object) -> Iterator[griffe.Object]:
    """An object and all that is defined in it."""
    yield thing
    for member in thing.members.values():
        if isinstance(member, griffe.Object):
            yield from walk(member)


class Docstring(griffe.Docstring):
    """A docstring in the project's form."""

    def __init__(self, thing: griffe.Object, public: set[str]) -> None:
        """thing: what it stands in; public: names that it may link to."""
        assert thing.docstring is not None
        super().__init__(thing.docstring.value, lineno=thing.docstring.lineno, parent=thing)
        self.thing, self.public = thing, public

    @property
    def parsed(self) -> list[griffe.DocstringSection]:
        """Its parts in their order: text, and tables of arguments or fields. Read late: a dataclass's
        arguments, and what a class inherits, are known only when all is loaded."""
        found: list[griffe.DocstringSection] = []
        for kind, names, lines in parts(self.value.splitlines(), known(self.thing)):
            text = "\n".join(lines).strip("\n")
            text = PAGE.sub(lambda m: f"[{m[1]}](../{m[1]}.md)", text)
            text = CODE.sub(lambda m: self.link(m[1], m[0]), text)
            if kind == "entry":
                add_rows(found, self.thing, names, text)
            elif kind:
                text = ERROR.sub(lambda m: self.link(m[0], m[0]), text) if kind == "Errors" else text
                found.append(griffe.DocstringSectionText(f"**{kind}:** {text}"))
            elif text:
                found.append(griffe.DocstringSectionText(text))
        return found

    def link(self, name: str, otherwise: str) -> str:
        """A link to a public name, but from its own entry."""
        own = name == self.thing.name or name not in self.public
        return otherwise if own else f"[`{name}`][adamode.{name}]"


def parts(lines: list[str], names: set[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """(kind, names, lines) of each part: kind "" for text, "entry" for a row, else a heading."""
    kind, entry, held = "", list[str](), list[str]()
    for line in lines:
        row, headed = ENTRY.match(line), HEADED.match(line)
        if row and all(name in names or ("**" in names and name.islower()) for name in row[1].split(", ")):
            yield kind, entry, held
            kind, entry, held = "entry", row[1].split(", "), [row[2]]
        elif headed and (kind or not held or not held[-1] or held[-1].endswith(".")):
            yield kind, entry, held
            kind, entry, held = headed[1].replace("Raises", "Errors"), [], [headed[2]]
        elif kind == "entry" and line.startswith("    "):
            held.append(line.strip())
        elif kind == "entry" or (kind and not line):
            yield kind, entry, held
            kind, entry, held = "", [], [line]
        else:
            held.append(line)
    yield kind, entry, held


def arguments(thing: griffe.Object) -> griffe.Parameters:
    """What it is called with."""
    return thing.parameters if isinstance(thing, (griffe.Class, griffe.Function)) else griffe.Parameters()


def known(thing: griffe.Object) -> set[str]:
    """Names that a line of its docstring may describe; "**" where it takes keywords by any name."""
    names = set(thing.all_members if isinstance(thing, griffe.Class) else ())
    for p in arguments(thing):
        any_name = p.kind is griffe.ParameterKind.var_keyword
        names |= {p.name, f"*{p.name}", f"**{p.name}"} | ({"**"} if any_name else set())
    return names


def add_rows(found: list[griffe.DocstringSection], thing: griffe.Object, names: list[str], text: str) -> None:
    """A row for each name, in the table before or in a new one."""
    taken = {p.name: p for p in arguments(thing)}
    members = thing.all_members if isinstance(thing, griffe.Class) else {}
    for name in names:
        argument, field = taken.get(name.lstrip("*")), members.get(name)
        row: Any
        if argument is None and field is not None:
            kind: Any = griffe.DocstringSectionAttributes
            annotation = getattr(field, "annotation", None)
            row = griffe.DocstringAttribute(name, description=text, annotation=annotation)
        else:
            kind, annotation = griffe.DocstringSectionParameters, argument and argument.annotation
            value = None if argument is None or argument.default is None else str(argument.default)
            row = griffe.DocstringParameter(name, description=text, annotation=annotation, value=value)
        if not (found and isinstance(found[-1], kind)):
            found.append(kind([]))
        found[-1].value.append(row)
