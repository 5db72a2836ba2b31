"""The review queue: its store, and the page on which people give verdicts."""
