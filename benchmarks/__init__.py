"""Measurements of what the converter costs, to be run by hand (`make bench`); nothing of the product imports them."""
