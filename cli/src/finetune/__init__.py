"""Fine-tunes language models from the command line, on this machine or in a cluster."""
