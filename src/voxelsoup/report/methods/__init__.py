"""The methods text: one template (`templates/methods.md.j2`), its values, its references."""
