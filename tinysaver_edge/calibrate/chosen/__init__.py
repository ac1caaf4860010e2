"""From proposals to one choice, and from the choice to a bundle."""
