"""Measured on this machine: one call, one stage, models in turns, a whole model or bundle.

timing         one call again and again, and what it holds in memory
model, bundle  a whole model file, a whole bundle, its models in turns; frames is what they see
throughput     how much goes through at once, and whether it gets slower in the long run
engine_choice  the fastest engine of a device that agrees
run, report    the command's measurement, and its JSON
"""
