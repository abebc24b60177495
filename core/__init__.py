"""The ground floor: what every part stands on, and that knows none of them."""
