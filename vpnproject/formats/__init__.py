"""How dates are written: in an order that sorts, and with seconds, as one reads a log."""
