"""From what a user asks to what is compiled, and back."""
