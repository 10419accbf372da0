"""Result rows: the one place that appends them to files and reads them back."""
