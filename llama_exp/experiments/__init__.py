"""Experiments of several stages: run, reported, written as a page. Imports no framework."""
