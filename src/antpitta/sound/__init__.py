"""Before the network: spectrograms, targets, windows, augmentation, simulated soundscapes."""
