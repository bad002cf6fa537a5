"""How gunicorn serves Podium: one process, so that caches and metrics are one; many threads."""

import os
from pathlib import Path

wsgi_app = "searchapp.wsgi:application"
bind = os.environ.get("BIND", "127.0.0.1:8000")
# Threads, half of which may wait for slow clients. Each may hold a database connection.
worker_class = "searchapp.slow_clients.Worker"
workers = 1
threads = int(os.environ.get("WEB_THREADS", "16"))
# Files go out as all else, by what counts the time that clients take.
sendfile = False
# A worker that does not beat for this long is replaced; requests themselves may take longer.
timeout = 60
graceful_timeout = 10
keepalive = 15
# A query of 4000 characters percent-encoded; the page answers a longer one, not the server.
limit_request_line = 0
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
errorlog = "-"
accesslog = "-" if os.environ.get("ACCESS_LOG") else None
loglevel = "warning"
# Its place would be one for all that this user runs.
control_socket_disable = True
proc_name = "podium-web"
