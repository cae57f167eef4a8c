"""Says what a forked program finds: ``python -m tests.core.forked_program <exit code or "stay"> <descriptor>``."""

import json
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    how, descriptor = sys.argv[1], int(sys.argv[2])
    numbers = sorted(int(path.name) for path in Path("/proc/self/fd").iterdir())
    found = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "folder": str(Path.cwd()),
        "arguments": sys.argv[1:],
        "was_imported": "ytserver.asgi" in sys.modules,
        "descriptors": [number for number in numbers if Path(f"/proc/self/fd/{number}").exists()],
        "read": os.pread(descriptor, 100, 0).decode(),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    if how == "stay":
        time.sleep(600)
    sys.exit(int(how))
