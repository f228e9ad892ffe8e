"""The settings that both sides of the training benchmark share."""

EPOCHS = 2
LEARNING_RATE = 2e-3
LONGEST = 512
RANK = 8
ALPHA = 32
SEED = 42
