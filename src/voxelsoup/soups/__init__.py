"""soups."""
