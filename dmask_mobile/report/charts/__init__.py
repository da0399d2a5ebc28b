"""The report's pictures: where each mark lies, as plain records that the templates write as SVG."""
