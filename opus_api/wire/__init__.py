"""FORMATS. Pure: bytes and dicts in, dicts and bytes out; no IO."""
