"""What a person sees on the terminal: the log, the bar, the tables, and what went wrong."""
