"""In the place of our programs in tests of local runs: `python -m stage_stub … COMMAND …` leaves a report and ends.

STAGE_REPORTS has the reports of the stages as JSON; a stage without one waits until it is stopped.
"""

import json
import os
import signal
import sys
from pathlib import Path

from finetune_api.contract.exit_codes import ExitCode
from finetune_api.contract.reports import StageReport


def main() -> None:
    """Run one command."""
    options = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    command = next(argument for argument in sys.argv[1:] if not argument.startswith("-"))
    report = json.loads(os.environ["STAGE_REPORTS"]).get(command)
    if report is None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.STOPPED))
        signal.pause()
    Path(options["termination-log"]).write_text(json.dumps(report))
    sys.exit(StageReport.model_validate(report).exit_code)


if __name__ == "__main__":
    main()
