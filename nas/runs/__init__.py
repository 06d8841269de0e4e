"""What a run leaves: its folder and lock, its checkpoints, its records; and how it stops."""
