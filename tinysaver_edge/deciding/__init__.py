"""From the stages' answers to a decision: ask, judge, answer."""
