"""From proposals to one choice, and from the choice to a bundle.

choose     the best that keeps every limit; what each method would have chosen
asking     people asked where answers differ: about which cascade, and what it buys
assemble   the choice, written as a bundle
golden     a few frames and their exact answers in it
published  figures of others, and a finished bundle beside them
"""
