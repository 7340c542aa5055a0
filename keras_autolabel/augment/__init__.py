"""Augmentations with known distances: each draws its parameters, then applies them."""
