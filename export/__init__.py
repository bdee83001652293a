"""Deployment recipes as data; installed as `mobile_avatar.recipes`."""
