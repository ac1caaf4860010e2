"""How Sphinx builds the site: `make docs`, strict, without a request to anywhere."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generated  # noqa: E402

from tinysaver_edge import __version__  # noqa: E402

project = "tinysaver-edge"
author = copyright = "the tinysaver-edge authors"
release = version = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_static"]
suppress_warnings = ["ref.python"]  # a word of a docstring that is several fields' name
html_theme = "furo"
html_title = "tinysaver-edge"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_search_scorer = str(HERE / "scorer.js")
html_copy_source = True
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}
smartquotes = False  # it makes one dash of the two before an option
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}
napoleon_use_ivar = True
napoleon_use_rtype = False
copybutton_prompt_text = "$ "
linkcheck_ignore = [r"https?://.*"]  # pages of others come and go; ours are checked by the build


def setup(app):  # noqa: ANN001, ANN201 - as Sphinx calls it
    """Write the pages that are made of the code and of results, before anything is read."""
    generated.write(HERE)
    app.connect("build-finished", generated.copy_markdown)
    app.connect("autodoc-process-docstring", _programs_as_such, priority=400)  # before napoleon
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", _commands_as_such)


def _commands_as_such(app, context, lines) -> None:  # noqa: ANN001
    """Have a help text's examples shown as commands, and keep *.png from being emphasis."""
    shown, within = [], False
    for line in lines:
        example = line.startswith("|     ")
        if example is not within:
            shown += ["", ".. code-block:: sh", ""] if example else [""]
        shown.append(line[2:] if example else line.replace("*", "\\*"))
        within = example
    lines[:] = shown


def _programs_as_such(app, what, name, obj, options, lines) -> None:  # noqa: ANN001
    """Have an indented block of a docstring shown as a program."""
    before, shown = "", []
    for line in lines:
        begins = line.startswith("    ") and not before.startswith("    ")
        if begins and shown and not shown[-1] and not before.endswith(":"):
            shown += ["::", ""]
        shown.append(line)
        before = line or before
    lines[:] = shown
