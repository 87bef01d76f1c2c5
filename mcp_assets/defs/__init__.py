"""Dagster adapters: partitions, assets, sensors, jobs. Each is short and calls `sync`; thinking belongs there.

Nothing here postpones the evaluation of annotations: Dagster reads those of resources, configs and assets.
"""
