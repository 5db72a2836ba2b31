"""The nouns, the clock and the settings: opens nothing."""
