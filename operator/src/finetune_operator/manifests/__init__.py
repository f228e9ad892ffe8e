"""Builders of the desired child objects, and how they differ from the live ones. No I/O."""
