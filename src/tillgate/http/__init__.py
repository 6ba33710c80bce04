"""The web face: thin handlers that read raw bytes, call a use case and answer bytes."""
