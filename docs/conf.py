"""Configuration of the documentation."""

import os
import re
from pathlib import Path

import torch
from docutils import nodes
from sphinx_gallery.sorting import ExplicitOrder

import skcalib
from skcalib.cli._lab import read_runtime, render_lab

project = "skcalib"
author = "The skcalib developers"
copyright = "The skcalib developers"  # noqa: A001
version = release = skcalib.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx-mathjax-offline",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
default_role = "py:obj"
autodoc_typehints = "none"  # The docstrings say it better.

autosummary_context = {
    # Inherited from scikit-learn, Mapping or torch, where they are documented.
    "inherited": [
        *(name for name in dir(torch.nn.Module) if name != "forward"),
        "__init__",
        "get_metadata_routing",
        "get_params",
        "score",
        "set_fit_request",
        "set_predict_proba_request",
        "set_predict_request",
        "set_params",
        "set_partial_fit_request",
        "set_score_request",
        "set_output",
        "get_feature_names_out",
        "fit_transform",
        "get",
        "items",
        "keys",
        "values",
    ],
    # Their `decision_function` is not available.
    "without_logits": [
        name
        for name in skcalib.__all__
        if getattr(getattr(skcalib, name), "has_logits", None) is False
    ],
}
numpydoc_show_class_members = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# In the order of need: the three users, then tasks, then research.
EXAMPLES = [
    "plot_network_owner.py",
    "plot_sklearn_pipeline.py",
    "plot_deployment.py",
    "plot_input_filter.py",
    "plot_neural_clamping.py",
    "plot_imbalance.py",
    "plot_text.py",
    "plot_thousand_classes.py",
    "plot_confidences.py",
    "plot_monitoring.py",
    "plot_prior_shift.py",
    "plot_groups.py",
    "plot_dense.py",
    "plot_options.py",
    "plot_dask.py",
    "plot_bilevel.py",
    "plot_clue.py",
]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "within_subsection_order": ExplicitOrder(EXAMPLES),
    "thumbnail_size": (400, 280),
    "download_all_examples": False,
    "ignore_repr_types": r"matplotlib\.",  # A legend at the end of a cell says nothing.
    "show_memory": False,
    "write_computation_times": False,
}

SOURCE = "https://github.com/skcalib/skcalib"

html_theme = "pydata_sphinx_theme"
html_title = "skcalib"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_context = {
    "github_user": "skcalib",
    "github_repo": "skcalib",
    "github_version": "main",
    "doc_path": "docs",
}
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_sidebars = {"getting_started": [], "api": [], "auto_examples/*": []}
html_theme_options = {
    "logo": {"text": "skcalib"},
    "icon_links": [
        {"name": "Source", "url": SOURCE, "icon": "fa-brands fa-github"},
    ],
    "external_links": [{"name": "Changes", "url": f"{SOURCE}/blob/main/CHANGES.md"}],
    "use_edit_page_button": True,
    "secondary_sidebar_items": ["page-toc", "edit-this-page"],
    "footer_start": ["copyright"],
    "footer_end": [],
}


# A number and its error or unit, which stay on one line.
TIED = re.compile(r"(?<=\d) (?=[±%])|(?<=[±/]) (?=\d)|(?<=\d) (?=/ )")

# A cell of more characters is text rather than a number.
LONG = 25


def setup(app):
    app.connect("build-finished", write_lab)
    app.connect("doctree-resolved", tie_numbers)
    app.connect("doctree-resolved", mark_pairs)


def tie_numbers(app, tree, docname):
    """Put no-break spaces between numbers and their errors."""
    for text in list(tree.findall(nodes.Text)):
        if TIED.search(text) and not isinstance(text.parent, nodes.literal_block):
            text.parent.replace(text, nodes.Text(TIED.sub("\N{NO-BREAK SPACE}", text)))


def mark_pairs(app, tree, docname):
    """Mark tables of a name and what it is, which a phone shows one below the other."""
    for table in tree.findall(nodes.table):
        rows = [row.children for row in table.findall(nodes.row)]
        if {len(row) for row in rows} == {2} and any(
            len(told.astext()) > LONG for _, told in rows
        ):
            table["classes"].append("pairs")


def write_lab(app, error):
    """Host the laboratory beside the pages; it runs networks where NODE_PATH helps."""
    if error is None and app.builder.format == "html":
        package = Path(os.environ.get("NODE_PATH", "."), "onnxruntime-web")
        runtime = read_runtime(package) if package.is_dir() else None
        page = render_lab(runtime)
        (Path(app.outdir) / "lab.html").write_text(page, encoding="utf-8")
