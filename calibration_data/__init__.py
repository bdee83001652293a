"""Keypoint vectors that quantisation calibrates with by default; README.md says how they were made."""
