"""The merge queue on main, and the workshop it shares with the roles."""
