"""The report's pictures: the positions of marks as plain records, which the templates write as SVG."""
