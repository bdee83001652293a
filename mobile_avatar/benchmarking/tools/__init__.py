"""Command-line tools that run on a phone: what to push, what to type, how to read what they print."""
