"""FLASK. Parse, call, render."""
