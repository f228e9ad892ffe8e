"""One pure builder for each child. Nothing here talks to a cluster."""
