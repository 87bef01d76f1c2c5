"""The forkserver's process: `python -m mcp_assets.launcher CONTROL_FD`, started by the launcher with a socket."""

import sys

from mcp_assets.launcher.serving import main

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
