"""Model presets: one function a size; sizes are measured by the tests."""
