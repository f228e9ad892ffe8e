"""Archives a release, from which the upgrade tests upgrade to the working tree.

`python tests/upgrade/keep.py [COMMIT]`: chart, API and operator of that commit (HEAD) become
`previous-<version>.tar.gz`, which replaces the former archive.
"""

import gzip
import io
import subprocess
import sys
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("charts", "crds/src", "operator/src")


def main(commit: str) -> None:
    """Write the archive of a commit; reproducible byte for byte."""
    files = subprocess.run(
        ["git", "archive", "--format=tar", commit, *PARTS], cwd=HERE.parents[1], capture_output=True, check=True
    ).stdout
    target = HERE / f"previous-{read_version(files)}.tar.gz"
    for former in HERE.glob("previous-*.tar.gz"):
        former.unlink()
    target.write_bytes(gzip.compress(files, mtime=0))
    print(target)


def read_version(files: bytes) -> str:
    """Return the version of the chart in an archive."""
    with tarfile.open(fileobj=io.BytesIO(files)) as archive:
        chart = archive.extractfile("charts/finetune-operator/Chart.yaml")
        lines = chart.read().decode().splitlines() if chart else []
    return next(line.removeprefix("version:").strip() for line in lines if line.startswith("version:"))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "HEAD")
