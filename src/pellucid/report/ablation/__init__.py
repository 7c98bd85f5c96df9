"""An ablation's directory → what it found, and a page of it. No torch.

Read in this order: record → scored → analysis → finding → tables → curves → page → write.
"""

from pellucid.report.ablation.analysis import Analysis, analyse
from pellucid.report.ablation.write import write_report

__all__ = ["Analysis", "analyse", "write_report"]
