"""Extractors: fields in, features out. Add one by adding one file here with ``@register("its_name")``."""
