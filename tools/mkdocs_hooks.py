"""Let links from pages to files of the repository show these files (hooks of mkdocs).

Pages link to sources as they do on a code host, `../../pixloc_ros/localizer.py`. The site holds
only `docs/`, so each linked source becomes a separate page. A link to a file that does
not exist stays as it is, and `mkdocs build --strict` fails on it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

LINK = re.compile(r"\]\(((?:\.\./)+[\w./-]+)\)")
LANGUAGES = {".py": "python", ".md": "markdown", ".yaml": "yaml", ".xml": "xml", ".toml": "toml"}


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every source that a page links to."""
    root = Path(config.config_file_path).parent
    sources = set()
    for page in files.documentation_pages():
        links = LINK.findall(page.content_string)
        sources |= {path for link in links if (path := _source(root, page.src_uri, link))}
    for path in sorted(sources):
        text = (root / path).read_text(encoding="utf-8")
        language = LANGUAGES.get(PurePosixPath(path).suffix, "text")
        content = f'---\ntitle: {path}\n---\n\n````{language} linenums="1"\n{text}\n````\n'
        files.append(File.generated(config, f"source/{path}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Turn links to sources into links to their pages."""
    root, here = Path(config.config_file_path).parent, page.file.src_uri

    def replace(match: re.Match[str]) -> str:
        path = _source(root, here, match[1])
        if path is None:
            return match[0]
        return f"]({os.path.relpath(f'source/{path}.md', PurePosixPath(here).parent)})"

    return LINK.sub(replace, markdown)


def _source(root: Path, page: str, link: str) -> str | None:
    """Return the path in the repository of a file outside of docs/; None for other links."""
    path = os.path.normpath(os.path.join("docs", os.path.dirname(page), link))
    inside = path.startswith(("docs", ".."))
    return None if inside or not (root / path).is_file() else path
