"""The storm: a seeded campaign against the running platform, and an oracle that knows what every store should hold.

workload  what happens: a pure, seeded list of steps, and the truth that follows from them
world     does the steps: writes source rows and publishes events, as MCP servers do
running   the platform as processes: starts it, names its process classes, kills and restarts them
oracle    compares all stores at rest with the truth
answers   collects the results that answer requests
recovery  single kills on a calm platform, with the seconds until it works again
"""
