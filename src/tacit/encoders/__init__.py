"""Encoders by spec string, and the heads that go on them."""
