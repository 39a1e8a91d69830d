"""What pages are drawn with: templates whose every value is escaped."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from worker.model.escape import block


def load_templates() -> Environment:
    """Load the templates; whatever is put into them is escaped, also what would make a text read as another."""
    return Environment(
        loader=PackageLoader("worker.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: block(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
