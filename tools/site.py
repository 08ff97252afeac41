"""A hook of MkDocs: adds pages from outside docs/ to the site, and makes links between files links between pages.

Links in the documents are those of a checkout, so that they work in a code browser. A link to a page of the site is
rewritten; one to another file, such as a schema or a program, becomes its path in code.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

HOME = Path(__file__).resolve().parent.parent
FOLDER = "project"  # of the site, for pages from outside docs/
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)")
BLOCK = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages in the navigation that are outside docs/."""
    for path in re.findall(rf"{FOLDER}/(\S+?\.md)", Path(config.config_file_path).read_text(encoding="utf-8")):
        files.append(File.generated(config, f"{FOLDER}/{path}", abs_src_path=str(HOME / path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite the links of a page."""
    here = PurePosixPath(page.file.src_uri)

    def rewritten(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        path = os.path.normpath(in_checkout(here).parent / target)
        place = in_site(path)
        if files.get_file_from_path(place) is None:
            return f"{text} (`{path}`)" if (HOME / path).exists() else link[0]  # MkDocs reports what is not there
        return f"[{text}]({os.path.relpath(place, here.parent)}{anchor or ''})"

    parts = BLOCK.split(markdown)  # prose and code in turn
    return "".join(part if number % 2 else LINK.sub(rewritten, part) for number, part in enumerate(parts))


def in_checkout(page: PurePosixPath) -> PurePosixPath:
    """The file of a page: path from the root of the checkout."""
    return page.relative_to(FOLDER) if page.parts[0] == FOLDER else "docs" / page


def in_site(path: str) -> str:
    """The page of a file, if it is one."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{FOLDER}/{path}"
