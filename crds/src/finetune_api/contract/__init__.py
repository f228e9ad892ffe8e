"""What the programs tell one another: the job file, reports, routes, and where things are mounted."""
