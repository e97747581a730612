"""People review a run: who they are, what they decide, and a log that shows whether it was changed."""
