"""The export stage: artifacts, destinations and the model card."""
