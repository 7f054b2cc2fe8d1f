"""Measurements of the library; run them from a checkout. A package so that its modules have names of their own."""
