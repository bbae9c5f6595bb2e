"""WHAT THE GATEWAY KNOWS. Rules and transactions on models; no Flask request."""
