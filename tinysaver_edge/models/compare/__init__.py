"""Does a model do what is said of it, whichever engine or form runs it?

readings  which reading of its file fits labelled images; ways are the plausible ones
compare   one form's answers against another's; a model against its description
"""
