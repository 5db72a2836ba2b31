"""The loader of a model's bundle: bundle.json, the weights, the recipe and the blend in it.

The first byte chooses the file that the input is; the others are those of a small valid model. The
digests are made anew, so that the input is refused for what it holds, and not for being changed.
"""
