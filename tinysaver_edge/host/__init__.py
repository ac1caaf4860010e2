"""The other side of a remote large model: serve it here, or write what real servers need."""
