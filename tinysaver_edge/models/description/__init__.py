"""What a model file takes and gives: read, guessed, written down."""
