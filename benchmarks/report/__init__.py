"""From result rows to tables, and to one page with the published values beside ours."""
