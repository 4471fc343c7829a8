"""LECTURE row E4: the Kantorovich dual by neural critics, certified; beside the exact distance."""
