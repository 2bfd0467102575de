"""One run and the folder that it leaves: what it did, how it goes on, where it came from. Imports no framework."""
