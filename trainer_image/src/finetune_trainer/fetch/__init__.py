"""Finds models and data on mounted volumes, or fetches them from the hub, over https or from object stores."""
