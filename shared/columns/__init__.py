"""A library as we model it: its columns, the values they take, and which source wins."""
