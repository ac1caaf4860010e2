"""What every program needs and no concept of ours: files, numbers, progress, optional packages."""
