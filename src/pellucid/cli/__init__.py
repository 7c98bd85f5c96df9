"""The command line: one file a command, each a thin layer over a Python call. Imports torch only to work."""
