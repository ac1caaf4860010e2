"""How thresholds are proposed and certified; numpy and scipy only.

propose        every method, from the stages' answers to a proposal
proposal       what a method allows for one cascade
certify        `--method certified`
chains         which savers are asked in turn, and which of these cascades are worth proof
path           the thresholds and the pool of all stages, from one threshold
counts         what each threshold of a path accepts and loses
outlook        what answers to questions would buy, where there are no labels
sweep          the same of every threshold of two stages, and the other methods
search         the best score and fusion for each saver
estimate       those that are searched, and what each would bring
fitting        whatever learns: scores and fusions
"""
