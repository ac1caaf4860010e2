"""Let a tiny model answer the easy frames and ask the large one only when it is unsure."""
