"""How each server of the embedded stack is run: its files, command line, port, and the check that it answers.

One module a server, each a `Server` of `base`. Starting, watching and restarting belong to the supervisor.
"""
