"""The composition root: the only package that knows everybody. Import its modules, not this."""
