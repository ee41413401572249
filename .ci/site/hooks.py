"""What the site's build does beside mkdocs: pages from outside docs/, formulas, a check of what came out.

A link that leaves docs/ (to the README, to a source file) leads to a page made of that file, in repository/.
docs/examples/*.py become pages of their cells. A pattern in the navigation stands for pages that it finds.
LaTeX becomes MathML, so no reader's browser needs a script or a font from elsewhere.
"""

from __future__ import annotations

import logging
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import math_core
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
STAGED = tempfile.TemporaryDirectory(prefix="adamode-site-")  # the package as installed, for its docstrings
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=(?:#[^)\s]*)?\))")
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
SAVED = re.compile(r'\.savefig\("([\w.]+)"')
STYLE_LOAD = re.compile(r"(?:url\(|@import)\s*[\"']?(https?:[^\"')]*)")
TO_MATHML = math_core.LatexToMathML(fancy_error=False)
log = logging.getLogger("mkdocs.hooks.site")


@event_priority(100)  # before mkdocstrings looks
def on_config(config: MkDocsConfig) -> None:
    """Lays the package out as it is installed, which griffe reads: its sub-packages lie beside it here."""
    package, no_data = Path(STAGED.name) / "adamode", shutil.ignore_patterns("__pycache__", "*.json")
    for layer in ("", "solvers", "adjoint", "models", "train"):
        shutil.copytree(ROOT / (layer or "adamode"), package / layer, ignore=no_data, dirs_exist_ok=True)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [STAGED.name]


# ---------------------------------------------------------------------------------------------- pages


def place(path: str) -> str:
    """Where a file of the repository stands among the site's sources."""
    inside = path.removeprefix("docs/")
    if path.startswith("docs/examples/") and path.endswith(".py"):
        return inside.removesuffix(".py") + ".md"
    if inside != path:
        return inside
    return f"repository/{path}" if path.endswith(".md") else f"repository/{path}.md"


def targets(text: str, source: str) -> Iterator[tuple[str, str]]:
    """(link, file of the repository) for every link of a text to one; source: the file that has the text."""
    for link in LINK.findall(text):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
        if "://" not in link and not path.startswith("..") and (ROOT / path).is_file():
            yield link, path


def relinked(text: str, source: str) -> str:
    """The text with its links to files of the repository as they are in the site."""
    here = posixpath.dirname(place(source))
    new = {link: posixpath.relpath(place(path), here or ".") for link, path in targets(text, source)}
    return LINK.sub(lambda m: new.get(m[1], m[1]), text)


def as_page(path: str) -> str:
    """A file of the repository as Markdown."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return relinked(text, path)
    if path.startswith("docs/examples/"):
        return relinked(cells(text), path)
    language = {".py": "python", ".toml": "toml", ".cfg": "ini"}.get(Path(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{text}````\n"


def cells(text: str) -> str:
    """A program in the percent format as Markdown: text cells as text, the others as code, with what they
    print and draw."""
    told: list[str] = []
    for cell in re.split(r"^# %%", text, flags=re.MULTILINE):
        head, _, body = cell.partition("\n")
        if "[markdown]" in head:
            told.append(re.sub(r"^# ?", "", body, flags=re.MULTILINE).strip())
        elif body.strip():
            code, _, output = body.strip().partition("\n# Output:\n")
            told.append(f"```python\n{code.strip()}\n```")
            told += [f"```text\n{re.sub('^# ?', '', output, flags=re.MULTILINE)}\n```"] if output else []
            title = told[0].partition("\n")[0].lstrip("# ")
            told += [f"![{title}](../images/examples/{name})" for name in SAVED.findall(code)]
    return "\n\n".join(told) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made of other files, and spells the navigation's patterns out."""
    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    waiting = pages + [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/examples/*.py")]
    waiting += ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if path not in pages:
            unlisted = InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, place(path), content=as_page(path), inclusion=unlisted))
        if path.endswith(".md") or path.startswith("docs/examples/"):
            text = (ROOT / path).read_text(encoding="utf-8")
            waiting += [other for _, other in targets(text, path) if place(other) not in files.src_uris]
    uris = sorted(file.src_uri for file in files.documentation_pages())
    config.nav = spelled(config.nav, uris, set(named(config.nav)))
    return files


def named(nav: Any) -> Iterator[str]:
    """Every page, and every pattern, in a navigation."""
    if isinstance(nav, str):
        yield nav
    for entry in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from named(entry)


def spelled(nav: Any, pages: list[str], taken: set[str]) -> Any:
    """The navigation with pages in the place of patterns, without sections that have none."""
    if isinstance(nav, dict):
        inner = {title: spelled(entry, pages, taken) for title, entry in nav.items()}
        return [
            {title: found[0] if isinstance(nav[title], str) else found}
            for title, found in inner.items()
            if found
        ]
    if isinstance(nav, list):
        return [entry for part in nav for entry in spelled(part, pages, taken)]
    found = [page for page in pages if PurePosixPath(page).match(nav) and page not in taken]
    taken.update(found)
    return found if "*" in nav else [nav]


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Leads links that leave docs/ to the pages made of what they name."""
    return relinked(markdown, f"docs/{page.file.src_uri}") if page.file.generated_by is None else markdown


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """Turns formulas into MathML."""
    html = INLINE.sub(lambda m: mathml(m[1], page, alone=False), html)
    return BLOCK.sub(lambda m: mathml(m[1], page, alone=True), html)


def mathml(latex: str, page: Page, alone: bool) -> str:
    """One formula, in the text or on lines of its own."""
    try:
        return str(TO_MATHML.convert_with_local_state(unescape(latex).strip(), displaystyle=alone))
    except math_core.LatexError as error:
        log.warning("%s: %s in the formula %s", page.file.src_uri, error, latex)
        return latex


# ---------------------------------------------------------------------------------------------- check


class Seen(HTMLParser):
    """What a page has: anchors, links, and what the browser loads for it."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes one element."""
        given = {name: value for name, value in attrs if value}
        self.anchors.update(given[name] for name in ("id", "name") if name in given)
        if "href" in given:
            (self.links if tag in ("a", "area") else self.loads).append(given["href"])
        self.loads += [given[name] for name in ("src", "srcset", "poster", "data") if name in given]


def on_post_build(config: MkDocsConfig) -> None:
    """Warns, which ends a strict build, of links that lead nowhere and of what is loaded from elsewhere."""
    site = Path(config.site_dir)
    pages = {}
    for path in site.rglob("*.html"):
        pages[path.resolve()] = seen = Seen()
        seen.feed(path.read_text(encoding="utf-8"))
    for path, seen in pages.items():
        for fault in faults(path, seen, pages):
            log.warning("%s: %s", path.relative_to(site.resolve()), fault)
    for path in (*site.rglob("*.css"), *site.rglob("*.html")):  # styles, and those inside pages
        for url in STYLE_LOAD.findall(path.read_text(encoding="utf-8")):
            log.warning("%s: loads %s", path.relative_to(site), url)


def faults(path: Path, seen: Seen, pages: dict[Path, Seen]) -> Iterator[str]:
    """What is wrong with the links and loads of a page."""
    for url in seen.loads:
        if urlsplit(url).netloc:
            yield f"loads {url}"
    for url in seen.links + seen.loads:
        parts = urlsplit(url)
        if parts.scheme or parts.netloc or path.name == "404.html":  # that page's links are absolute
            continue
        there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        there = there / "index.html" if there.is_dir() else there
        if not there.exists():
            yield f"{url} is not there"
        elif parts.fragment and there in pages and unquote(parts.fragment) not in pages[there].anchors:
            yield f"{url}: no such anchor"
