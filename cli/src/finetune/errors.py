"""The error that ends a command: its message is for the user, and no traceback is printed."""


class CommandError(Exception):
    """A command cannot go on; the message says what to do."""
