"""What runs leave, for people to look at: from their files alone."""
