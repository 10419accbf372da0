"""What a training minimises: evidence lower bounds, penalties, and schedules of their weights."""
