"""Every byte from or to the disk."""
