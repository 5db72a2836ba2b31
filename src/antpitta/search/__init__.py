"""Where to listen: template matching, similarity, and draws of candidates."""
