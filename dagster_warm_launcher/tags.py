"""Tags by which a run asks something of this package."""

PROMPT_TAG = "warm_launcher/prompt"
"""On a sensor's RunRequest: the run does not wait in the queue while there is room. Runs of others have no such tag."""
