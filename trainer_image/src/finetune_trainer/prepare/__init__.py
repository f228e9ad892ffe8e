"""The prepare stage: reads, checks, splits and measures the data before a GPU is requested."""
