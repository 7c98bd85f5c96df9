"""Run directories → one page: what they are, their curves, what was measured, what they wrote. No torch.

Read in this order: record → figures → curves → measured → settings → page → write.
"""

from pellucid.report.run.record import RunRecord, read_run
from pellucid.report.run.write import write_report

__all__ = ["RunRecord", "read_run", "write_report"]
