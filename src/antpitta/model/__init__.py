"""The network, and running it over a recording."""
