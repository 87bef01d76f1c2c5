"""Tests of the Dagster adapters, in this process: definitions, runs, backfills, the sensor, Dagster's storage."""
