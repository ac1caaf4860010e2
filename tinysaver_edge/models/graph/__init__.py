"""A model file's graph: shapes, operators, MACs."""
