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
{%- block html_head_css -%}
<style>.jp-InputArea .highlight pre, .jp-OutputArea pre { white-space: pre-wrap; } summary { cursor: pointer; }</style>
{%- endblock -%}
{%- block input_group -%}
{%- if cell.metadata.get("jupyter", {}).get("source_hidden") -%}
<details><summary>code of this cell</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock -%}
"""


class MathMLRenderer(IPythonRenderer):
    """Markdown to HTML with formulas as MathML."""

    def block_math(self, body):
        return convert(body, display="block")

    def inline_math(self, body):
        return convert(body)

    def latex_environment(self, name, body):
        return convert(rf"\begin{{{name}}}{body}\end{{{name}}}", display="block")


def markdown_to_html(source):
    return MarkdownWithMath(renderer=MathMLRenderer(escape=False)).render(source)


def page(notebook):
    """The notebook as HTML; links to other notebooks lead to their pages."""
    exporter = HTMLExporter(raw_template=TEMPLATE, filters={"markdown2html": markdown_to_html})
    text, _ = exporter.from_notebook_node(notebook)
    return re.sub(r'href="((?:\.\./|solutions/)?\d\d_\w+)\.ipynb"', r'href="\1.html"', text)


def index(rows):
    """A page that lists the notebooks: rows of (name, title, minutes, pictures, error or None)."""
    items = [f'<tr><td><a href="{name}.html">{html.escape(title)}</a></td><td>{minutes:.1f}</td><td>{pictures}</td>'
             f'<td>{"ok" if error is None else "failed"}</td></tr>' for name, title, minutes, pictures, error in rows]
    return ('<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>The course</title><style>'
            "body{font-family:sans-serif;max-width:50em;margin:2em auto}td,th{text-align:left;padding:.3em 1em}"
            "</style></head><body><main><h1>The course, as it ran here</h1><table><tr><th>notebook</th><th>minutes</th>"
            f"<th>pictures</th><th>run</th></tr>{''.join(items)}</table></main></body></html>\n")
