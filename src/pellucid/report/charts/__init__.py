"""Charts as values, drawn as SVG by our own hand and as PNG by matplotlib. No torch.

The page draws without matplotlib, which is an optional library and whose pictures neither follow a page from light to
dark nor keep the size of their letters where the page is narrow.

Read in this order: values → thinning → scales → curves → forest → svg → pictures.
"""

from pellucid.report.charts.values import Axis, Chart, Forest, Mark, Picture, Row, Series

__all__ = ["Axis", "Chart", "Forest", "Mark", "Picture", "Row", "Series"]
