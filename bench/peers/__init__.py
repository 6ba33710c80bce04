"""What the hub is compared with: the same create as one would write it without the hub's ideas."""
