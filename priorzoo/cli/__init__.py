"""The command line ``priorzoo``."""
