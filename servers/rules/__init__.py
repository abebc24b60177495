"""What cannot work together, a file for each kind of row. ``registry`` says who asks."""
