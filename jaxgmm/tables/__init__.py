"""Groups, columns and files."""
