"""Networks: backbones, the head, losses, inference backends, export and embedding models."""
