"""`python -m escalations`: all attempts of a tenant to get more rights; prints the outcomes as one line of JSON."""

import json
import sys
import tempfile
from pathlib import Path

from api.account import install_account
from api.conftest import Operator
from api.player import Player
from cluster.control_plane import control_plane, install_crds
from escalations.attempts import GROUPS, summarize
from escalations.scene import SETTINGS, SUCCEEDED, TENANT, open_scene
from operator_log import check_log


def main() -> int:
    """Run all attempts; return 1 if one succeeded."""
    with control_plane() as cluster, tempfile.TemporaryDirectory() as directory:
        install_crds(cluster)
        account = install_account(cluster)
        operator = Operator(account.kubeconfig, Path(directory), account.argument, settings=SETTINGS)
        with open_scene(cluster, is_thorough=True) as scene, Player(cluster) as player:
            player.play(TENANT, scene.play)
            operator.start()
            try:
                groups = {name: list(attempt(scene)) for name, attempt in GROUPS.items()}
            finally:
                operator.stop()
        check_log(operator.log.read_text())
    attempts = [attempt for group in groups.values() for attempt in group]
    for attempt in attempts:
        if attempt.outcome == SUCCEEDED:
            sys.stderr.write(f"SUCCEEDED: {attempt.description}: {attempt.evidence}\n")
    summary = summarize(attempts) | {"groups": {name: summarize(group) for name, group in groups.items()}}
    print(json.dumps(summary))
    return 1 if summary["successes"] else 0


if __name__ == "__main__":
    sys.exit(main())
