"""Dagster's view of the platform: one module for each of Dagster's concepts, each short.

Belongs here: assets, asset checks, jobs, schedules, sensors, backfills, partitions, resources, what stands in the event
log and in metadata. Does not: anything that would be true without Dagster; that is in `sync`, which these modules call.

Nothing here postpones the evaluation of annotations: Dagster reads those of resources, configs and assets.
"""
