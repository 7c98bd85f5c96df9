"""An ablation's directory → what it found, and a page of it. No torch.

Read in this order: record → scored → analysis → finding → tables → curves → page → write.
"""
