"""How a threshold is proposed and certified; numpy and scipy only.

propose        every method, from a saver's answers to a proposal
proposal       what a method allows for one saver
certify        `--method certified`
others         the other methods, TinySaver's own among them
sweep, counts  what each threshold accepts and loses
search         the best score and fusion for each saver
combinations   those that are searched; estimate says what each would bring
fitting        whatever learns: scores and fusions
"""
