"""From the stages' answers to a decision: ask, judge, answer.

loading  a bundle's stages
naming   class names given to a bundle that is finished
stage    one model with its engine, preprocessing and threshold
decider  asks the stages, cheapest first
policy   when an answer is accepted, and what becomes of the answers: `Judge`
memory   one camera's answers, and when they are repeated
epochs   what would be reused on recorded frames, all epochs side by side
figures  what a policy does on labelled samples
"""
