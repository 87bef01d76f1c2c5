"""The forkserver's process: `python -m dagster_warm_launcher CONTROL_FD`, started by the launcher with a socket."""

import sys

from dagster_warm_launcher.serving import main

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
