"""Questions: "which of these two classes is right?", asked where two answers differ.

known      what is known of the true classes, as values; the questions themselves
book       the answers as people gave them: a file that only grows, and tables in and out
tally      the counts of a walk, kept up to date answer by answer
interview  which question comes next for whom, and what the answers prove so far
page/      the questions in a browser, answered by one click each
"""
