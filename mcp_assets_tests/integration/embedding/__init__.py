"""Tests of the embedding providers against a server over HTTP."""
