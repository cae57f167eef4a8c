"""Django's own check for production finds nothing to complain about."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

from cryptography.fernet import Fernet

from ytserver.env import BASE_DIR, without_settings


def test_the_deploy_check_is_clean_with_production_settings(tmp_path):
    settings = {
        "DEBUG": "false",
        "PUBLIC_URL": "https://media.example.com",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "FIELD_KEYS": Fernet.generate_key().decode(),
        "VAR_DIR": str(tmp_path),
        "MONGO_URI": os.environ["MONGO_URI"],
        "REDIS_URL": os.environ["REDIS_URL"],
    }
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--tag", "security", "--fail-level", "WARNING"],
        cwd=BASE_DIR, env=without_settings(os.environ) | settings, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues" in done.stdout
