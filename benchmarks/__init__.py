"""Data sets, metrics, recipes, the runner, figures, the report and the command line."""
