"""Makes the .deb and the .rpm of the built file; `build.py package` calls it. It needs nothing but Python."""
