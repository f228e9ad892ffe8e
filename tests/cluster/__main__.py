"""`python -m cluster up [--images] | down | status | images [--registry R]`."""

import argparse
import sys

from cluster.images import build_images, push_images
from cluster.layout import ClusterError
from cluster.lifecycle import down, find_running, up


def main() -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description="Runs a real Kubernetes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the cluster").add_argument(
        "--images", action="store_true", help="also build and load the project's images"
    )
    commands.add_parser("down", help="stop the cluster; keep only the cache")
    commands.add_parser("status", help="print whether the cluster runs; exit with 3 if not")
    commands.add_parser("images", help="build the project's images").add_argument(
        "--registry", help="push the images to this registry path"
    )
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "up":
                up(images=arguments.images)
            case "down":
                down()
            case "images":
                build_images()
                if arguments.registry:
                    push_images(arguments.registry)
            case "status":
                cluster = find_running()
                print(f"running: export KUBECONFIG={cluster.kubeconfig}" if cluster else "not running")
                return 0 if cluster else 3
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
