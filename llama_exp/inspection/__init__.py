"""What training changed in the weights of a run. Imports no framework."""
