"""Tests of `deploy`: what its files name exists, and what they grant is no more than is needed."""
