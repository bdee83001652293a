"""Shipped weights and avatar."""
