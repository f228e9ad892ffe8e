"""Settings of both sides of the training benchmark."""

EPOCHS = 2
LEARNING_RATE = 2e-3
MAX_LENGTH = 512
RANK = 8
ALPHA = 32
SEED = 42
