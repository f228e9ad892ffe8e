"""The export stage, and what it needs: artifacts, destinations, the model card."""
