"""Dagster's view of the platform: one module for each of Dagster's concepts, each short.

Belongs here: assets, asset checks, jobs, schedules, sensors, backfills, partitions, resources, the entries of the event
log and of metadata. Does not belong here: any rule that holds without Dagster. Such rules are in `sync`, which these
modules call.

No module here postpones the evaluation of annotations, because Dagster reads those of resources, configs and assets.
"""
