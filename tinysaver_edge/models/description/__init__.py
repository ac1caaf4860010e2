"""What a model file takes and gives: read, guessed, written down.

description  what the runtime must know of a model
schema       its form in TOML
describe     writes one as far as the file tells
facts        what the file tells beyond shapes
carried      the texts in it, ours and others'
"""
