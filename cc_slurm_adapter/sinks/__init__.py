"""Bytes out: one file a destination. cc-backend's words begin here."""
