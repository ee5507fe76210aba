"""From a user's request to compiled programs, and back."""
