"""The contract between operator, trainer and server: job file, reports, routes and mount paths."""
