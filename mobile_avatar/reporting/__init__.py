"""One page about a bundle: what was exported, whether it is right, and how fast it is."""
