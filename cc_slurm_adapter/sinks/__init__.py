"""The destinations that jobs are reported to, each a module or a package.

cc-backend's own words are used from here on.
"""
