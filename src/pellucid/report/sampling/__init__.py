"""A comparison of sampling strategies, drawn: `print_comparison` for a terminal, `to_html` for a page.

Read in this order: columns → terminal → page.
"""

from pellucid.report.sampling.page import to_html
from pellucid.report.sampling.terminal import print_comparison

__all__ = ["print_comparison", "to_html"]
