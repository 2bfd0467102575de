"""What an experiment states before it runs, and whether its runs agree. Imports no framework."""
