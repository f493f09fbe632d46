"""Settings of the documentation: ``make docs`` builds it from Markdown and docstrings, without a network."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math import latex2mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

project = author = "cns-lightning"
copyright = "The cns-lightning authors, Apache-2.0"
version = release = installed("cns-lightning")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures/*.py"]
html_theme = "furo"
html_title = "cns-lightning"
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["site.css"]
highlight_language = "text"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

# `name` in a docstring is a word of the code.
default_role = "literal"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False

# Nothing is fetched, so what other libraries, or parts of this one without a page, are called has no target.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!cns_lightning\.).*"),
    (r"py:.*", r"cns_lightning\.(data\.augmentation|data\.masks|data\.prior_pictures|diffusion|ranges|sequences)\..*"),
    (r"py:.*", r"cns_lightning\.(registry\.files\.Index|registry\.store\.Records|methods\.deltas\.BufferList)"),
]


def write_inline(writer: HTML5Translator, node: nodes.math) -> None:
    """Writes a formula of a line as MathML, which browsers show without a script from elsewhere.

    Raises:
        SkipNode: always; the node is done.
    """
    writer.body.append(latex2mathml.tex2mathml(node.astext()))
    raise nodes.SkipNode


def write_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    """Writes a formula of its own as MathML; raises what `write_inline` raises."""
    writer.body.append(f'<div class="math">{latex2mathml.tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Registers the writer of formulas."""
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
