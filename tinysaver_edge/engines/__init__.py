"""Engines: one file per way to run one model, behind one contract (`base.Engine`)."""
