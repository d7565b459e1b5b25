"""Sphinx's configuration for ``make docs``.

The pages are read where they lie, so that a link works on a forge as well as on the site: the source folder is the repository.
"""

from __future__ import annotations

import re
from typing import Any

from dpp import __version__
from luigi import Task
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

project = "dpp"
version = release = __version__
root_doc = "docs/index"
include_patterns = ["*.md", "benchmarks/*.md", "docs/**", "plugins/*/README.md"]
exclude_patterns = [".*", "docs/_*", "**/.*", "build", "dist", "dpp", "tests"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "model_config, model_post_init, model_copy"}
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes named bytes or id would be taken for the types of that name

nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!dpp\.).*"),  # names of other projects have no page here, and their own sites can't be asked without a network
    ("py:.*", r"dpp\.(?!testing\.)[a-z]\w*(\.\w+)+"),  # only public names have a page; a signature may show others
]

html_theme = "furo"
html_title = f"dpp {__version__}"
html_extra_path = ["_extra"]
html_copy_source = False

LIST = re.compile(r"^## (?P<heading>.+)\n\n(?P<items>(?:(?:- |  ).+\n)+)", re.MULTILINE)


def add_toctrees(app: Sphinx, docname: str, source: list[str]) -> None:
    """Make a part of the navigation of each list of links in the index, so that forge and site share one list."""
    if docname == app.config.root_doc:
        source[0] = LIST.sub(_with_toctree, source[0])


def _with_toctree(found: re.Match[str]) -> str:
    pages = re.findall(r"^- \[(.+?)\]\(([^)#]+)\)", found["items"], re.MULTILINE)
    lines = [f"{title} <{page}>" for title, page in pages]
    return "\n".join([found[0], "```{toctree}", ":hidden:", f":caption: {found['heading']}", "", *lines, "```", ""])


def shorten_signature(_app: Sphinx, _what: str, _name: str, value: Any, *_rest: Any) -> tuple[str, None] | None:
    """Show a model's fields as their author wrote them, without pydantic's checks, and none of Luigi's ``(*args, **kwargs)``."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        return f"(*, {', '.join(_shown(name, field) for name, field in value.model_fields.items())})", None
    if isinstance(value, type) and issubclass(value, Task):
        return "", None
    return None


def _shown(name: str, field: FieldInfo) -> str:
    shown = f"{name}: {stringify_annotation(field.annotation, 'smart')}"
    return shown if field.is_required() else f"{shown} = ..."


def setup(app: Sphinx) -> None:
    """Connect what is done by hand."""
    app.connect("source-read", add_toctrees)
    app.connect("autodoc-process-signature", shorten_signature)
