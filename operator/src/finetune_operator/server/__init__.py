"""Decisions about one ModelServer: its desired children, its routes and its next status. No I/O."""
