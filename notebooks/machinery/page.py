"""An executed notebook as one HTML file that needs no other file and no network.

nbconvert's page would load MathJax, require.js and mermaid from servers elsewhere. Here formulas become MathML, which
browsers draw themselves, and the scripts are left out.
"""

import html
import re

from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

TEMPLATE = """
{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
"""


class MathMLRenderer(IPythonRenderer):
    """Markdown to HTML with formulas as MathML."""

    def block_math(self, body):
        return convert(body, display="block")

    def inline_math(self, body):
        return convert(body)

    def latex_environment(self, name, body):
        return convert(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block")


class OfflinePage(HTMLExporter):
    """nbconvert's page without anything from elsewhere."""

    def __init__(self, **options):
        super().__init__(raw_template=TEMPLATE, **options)

    def markdown2html(self, context, source):
        renderer = MathMLRenderer(escape=False, anchor_link_text=self.anchor_link_text)
        return MarkdownWithMath(renderer=renderer).render(source)

    def default_filters(self):
        yield from super().default_filters()
        yield ("markdown2html", self.markdown2html)


def page(notebook):
    """The notebook as HTML; links to other notebooks lead to their pages."""
    text, _ = OfflinePage().from_notebook_node(notebook)
    return re.sub(r'href="(\d\d_\w+)\.ipynb"', r'href="\1.html"', text)


def index(rows):
    """A page that lists the notebooks: rows of (name, title, minutes, pictures, error or None)."""
    items = [f'<tr><td><a href="{name}.html">{html.escape(title)}</a></td><td>{minutes:.1f}</td><td>{pictures}</td>'
             f'<td>{"ok" if error is None else "failed"}</td></tr>' for name, title, minutes, pictures, error in rows]
    return ('<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>The course</title><style>'
            "body{font-family:sans-serif;max-width:50em;margin:2em auto}td,th{text-align:left;padding:.3em 1em}"
            "</style></head><body><main><h1>The course, as it ran here</h1><table><tr><th>notebook</th><th>minutes</th>"
            f"<th>pictures</th><th>run</th></tr>{''.join(items)}</table></main></body></html>\n")
