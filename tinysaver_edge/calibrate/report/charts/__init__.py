"""The report's charts: one file each, facts in, scalable picture out, at two widths."""
