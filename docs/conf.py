"""The site of these pages, by Sphinx, MyST and furo (`make site`). Nothing is fetched from elsewhere."""

from importlib.metadata import version as installed_version

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "topod"
author = "the topod developers"
release = version = installed_version("topod")
extensions = ["myst_parser"]
root_doc = "index"
exclude_patterns = ["monitoring/**", "_build/**"]
html_theme = "furo"
html_title = f"topod {release}"
html_copy_source = False
html_show_search_summary = False  # fetched by a script, which browsers forbid pages that are read as files
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
myst_heading_anchors = 4  # as deep as pages link; the anchors are those that code hosts make too


def setup(app: Sphinx) -> None:
    """Show diagrams as their text: drawing them would need a script from elsewhere."""
    app.add_lexer("mermaid", TextLexer)
