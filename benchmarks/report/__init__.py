"""From result rows to tables, and to one page beside the published figures."""
