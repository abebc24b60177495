"""Pages of the second factor that administrators sign in with; what they do is in ``core.second_factor``."""
