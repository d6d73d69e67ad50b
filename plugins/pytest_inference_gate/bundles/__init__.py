"""``inference-gate bundle``: measuring a board that nobody can reach."""
