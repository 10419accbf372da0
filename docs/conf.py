"""Settings of the site, which `make docs` builds into docs/_build/html."""

import os
import sys
from pathlib import Path

from priorzoo import __version__

sys.path.insert(0, str(Path(__file__).parent / "extensions"))
# One thread, as in the tests: two of them on two cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
from shortened import forget

forget(Path(__file__).parent / "built")

project = "priorzoo"
author = "The priorzoo developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "commands",
    "mathml",
    "outside",
    "papers",
    "reference",
]
exclude_patterns = ["_build", "gallery", "built/sg_execution_times.rst", "sg_execution_times.rst"]
html_theme = "furo"
html_title = "priorzoo"
html_static_path = ["_static"]
html_css_files = ["priorzoo.css"]
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
highlight_language = "text"  # of blocks that name none, which are commands
pygments_dark_style = "monokai"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
copybutton_prompt_text = "$ "

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "built",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1,
    "abort_on_example_error": True,
    "copyfile_regex": "",
    "remove_config_comments": True,
    "capture_repr": (),  # a page shows what its script prints, not the value of a last line
    "reset_modules": ("matplotlib", "dressed.dress", "shortened.shorten"),
}
suppress_warnings = ["config.cache"]  # the functions in sphinx_gallery_conf are not pickled
