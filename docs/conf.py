"""The site: ``sphinx-build -W docs build/site``, with the extra ``docs`` installed."""

import importlib.metadata
import inspect
import os
import pathlib

from sphinx.util.inspect import stringify_signature

# The tutorial runs in a process of its own, which imports the folder data of this checkout.
os.environ["PYTHONPATH"] = str(pathlib.Path(__file__).parents[1])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

project = "keras-autolabel"
release = importlib.metadata.version(project)
copyright = "the authors of keras-autolabel, Apache-2.0"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# What the package's page on PyPI says; index.md has the README instead.
exclude_patterns = ["description.md"]

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["narrow.css"]
html_theme_options = {"light_css_variables": {"code-font-size": "80%"}}

myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
# TensorFlow tells there which processor it found.
nb_output_stderr = "remove"

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Attributes stand in a list: those of named tuples are documented by autodoc as well.
napoleon_use_ivar = True


def _signature_of_constructor(app, what, name, value, options, signature, returns):
    """The arguments of a Keras class, which Keras' ``__new__`` hides."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    _, *parameters = inspect.signature(value.__init__).parameters.values()
    return stringify_signature(inspect.Signature(parameters), unqualified_typehints=True), returns


def setup(app):
    """Sphinx calls it."""
    app.connect("autodoc-process-signature", _signature_of_constructor)
