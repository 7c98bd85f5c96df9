"""Run directories → one page: what they are, their curves, what was measured, what they wrote. No torch.

Read in this order: record → figures → curves → measured → settings → page → write.
"""
