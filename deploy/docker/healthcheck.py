"""Health of one service of the image: exits with 0 if it serves, and otherwise says why not and exits with 1.

    python healthcheck.py grpc 4266                              the code server
    python healthcheck.py http http://127.0.0.1:3000/server_info   a webserver

`dagster api grpc-health-check` asks the same, and imports Dagster first, which takes two seconds of CPU time at each
call. For the daemon there is `dagster-daemon liveness-check`.
"""

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 5
"""A service that is well answers within milliseconds, and within this time on a machine that is busy."""


def grpc_serves(port: str) -> str | None:
    """Why the gRPC server on `port` does not serve; None if it does."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="DagsterApi"), timeout=TIMEOUT_S
            )
        except grpc.RpcError as error:
            return f"port {port}: {error.details()}"
    serving = health_pb2.HealthCheckResponse.SERVING
    return None if answer.status == serving else f"port {port}: the code server answers, and does not serve yet"


def http_serves(address: str) -> str | None:
    """Why `address` does not answer with a success; None if it does."""
    try:
        urllib.request.urlopen(address, timeout=TIMEOUT_S).close()  # noqa: S310  (the address is the image's own)
    except (urllib.error.URLError, OSError) as error:
        return f"{address}: {error}"
    return None


def main(words: list[str]) -> int:
    match words:
        case ["grpc", port]:
            fault = grpc_serves(port)
        case ["http", address]:
            fault = http_serves(address)
        case _:
            fault = f"give `grpc PORT` or `http ADDRESS`, and not {words}"
    if fault is not None:
        sys.stderr.write(fault + "\n")
    return 0 if fault is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
