"""Values and run directories → tables, pictures, pages."""
