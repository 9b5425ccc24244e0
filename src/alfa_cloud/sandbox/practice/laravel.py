"""A stand-in for the laboratories' Laravel app: what a container of a practice server runs.

It is run as `python -I -S laravel.py VERSION PSQL STORAGE LOCK serve PORT` or `... artisan WORDS`, with the container's
environment, so it imports the standard library only, and where it is used: half of a short command is imports. The
database is real; passwords go to psql by its environment.
"""
# ruff: noqa: PLC0415

import os
import sys
import time

USERS = """CREATE TABLE users (id bigserial PRIMARY KEY, login varchar(255) UNIQUE NOT NULL,
    password varchar(255) NOT NULL, created_at timestamptz NOT NULL DEFAULT now());"""
SAMPLES = """CREATE TABLE samples (id bigserial PRIMARY KEY, name text NOT NULL, demo boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now());"""
MIGRATIONS = (
    ("2026_01_01_000000_create_users_table", USERS),
    ("2026_01_02_000000_create_samples_table", SAMPLES),
)
NEWER = ("2026_10_01_000000_add_note_to_samples_table", "ALTER TABLE samples ADD COLUMN note text;")
BROKEN = ("2026_11_01_000000_break_everything", "ALTER TABLE samples DROP COLUMN no_such_column;")
TRACK = """CREATE TABLE IF NOT EXISTS migrations
    (id serial PRIMARY KEY, migration varchar(255) NOT NULL, batch integer NOT NULL);"""
QUIET_COMMANDS = (
    "queue:restart",
    "optimize",
    "optimize:clear",
    "config:cache",
    "config:clear",
    "route:cache",
    "view:cache",
    "cache:clear",
    "storage:link",
    "down",
    "up",
    "key:generate",
    "schedule:run",
)
ROUNDS = 1_000


class DatabaseError(Exception):
    """PostgreSQL refused."""


class App:
    """One version of the app, with the environment of its container."""

    def __init__(self, version: str, psql: str, storage: str) -> None:
        self.version = version
        self.psql = psql
        self.storage = storage

    @property
    def migrations(self) -> tuple[tuple[str, str], ...]:
        """The migrations of this version, in order."""
        if self.version.startswith("9.9.9"):
            return (*MIGRATIONS, BROKEN)
        return (*MIGRATIONS, NEWER) if tuple(self.version.split(".")[:2]) >= ("1", "1") else MIGRATIONS

    def query(self, sql: str, **values: str) -> str:
        """Run SQL in the client's database; `:'name'` in it is a quoted value.

        Raises:
            DatabaseError: it did not work.
        """
        import subprocess

        if os.environ.get("DB_CONNECTION", "pgsql") != "pgsql":
            raise DatabaseError("could not find driver")
        names = {"PGHOST": "DB_HOST", "PGPORT": "DB_PORT", "PGDATABASE": "DB_DATABASE", "PGUSER": "DB_USERNAME"}
        names["PGPASSWORD"] = "DB_PASSWORD"
        env = {"PATH": os.environ.get("PATH", ""), "PGCONNECT_TIMEOUT": "5", "PGAPPNAME": "alfa"}
        env |= {name: os.environ.get(source, "") for name, source in names.items()}
        argv = [self.psql, "-XqAt", "--set=ON_ERROR_STOP=1", "--file=-"]
        # psql takes values of variables from its input, so that none stands in its arguments.
        head = "".join(f"\\set {name} {quoted(value)}\n" for name, value in values.items())
        done = subprocess.run(argv, input=(head + sql).encode(), capture_output=True, env=env, check=False)
        if done.returncode:
            raise DatabaseError(done.stderr.decode("utf-8", "replace").strip())
        return done.stdout.decode().strip()

    def note(self, text: str) -> None:
        """Append to the app's own log, in the client's storage."""
        if self.storage and os.path.isdir(self.storage):
            logs = os.path.join(self.storage, "logs")
            os.makedirs(logs, exist_ok=True)
            with open(os.path.join(logs, "laravel.log"), "a", encoding="utf-8") as log:
                log.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] production.INFO: {text}\n")


def quoted(value: str) -> str:
    """A value as psql's `\\set` reads it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"


def hashed(password: str, salt: str = "", rounds: int = ROUNDS) -> str:
    """What is stored of a password."""
    import hashlib

    salt = salt or os.urandom(8).hex()
    key = hashlib.pbkdf2_hmac("sha256", password.encode("utf-8", "surrogateescape"), salt.encode(), rounds)
    return f"pbkdf2_sha256${rounds}${salt}${key.hex()}"


def is_hash_of(stored: str, password: str) -> bool:
    """Whether this is what is stored of a password."""
    import hmac

    _, rounds, salt, _ = stored.split("$")
    return hmac.compare_digest(stored, hashed(password, salt, int(rounds)))


def say(*lines: str) -> None:
    """Print lines as artisan does, with an empty one around them."""
    print("", *("  " + line for line in lines), "", sep="\n", flush=True)


# Commands of `php artisan`.


def migrate(app: App, words: list[str]) -> int:
    """The client's database has this version's tables."""
    if os.environ.get("APP_ENV", "production") == "production" and "--force" not in words:
        say("WARN  Command cancelled.")
        return 1
    known = app.query(f"SET client_min_messages = warning; {TRACK} SELECT migration FROM migrations").splitlines()
    todo = [(name, sql) for name, sql in app.migrations if name not in known]
    if not todo:
        say("INFO  Nothing to migrate.")
        return 0
    batch = app.query("SELECT coalesce(max(batch), 0) + 1 FROM migrations") if known else "1"
    say("INFO  Running migrations.")
    for name, sql in todo:
        started = time.monotonic()
        insert = f"INSERT INTO migrations (migration, batch) VALUES (:'name', {int(batch)});"
        try:
            app.query(f"BEGIN; {sql} {insert} COMMIT;", name=name)
        except DatabaseError:
            print(f"  {name} {'.' * (60 - len(name))} FAIL", flush=True)
            raise
        print(f"  {name} {'.' * (60 - len(name))} {(time.monotonic() - started) * 1000:.2f}ms DONE", flush=True)
    print(flush=True)
    return 0


def migrate_status(app: App, words: list[str]) -> int:
    """What has run and what is pending."""
    try:
        known = app.query("SELECT migration FROM migrations").splitlines()
    except DatabaseError:
        say("ERROR  Migration table not found.")
        return 1
    say(*(f"{name} {'.' * (60 - len(name))} {'Ran' if name in known else 'Pending'}" for name, _ in app.migrations))
    pending = any(name not in known for name, _ in app.migrations)
    return 1 if pending and "--pending" in words else 0


def owner_password(app: App, words: list[str]) -> int:
    """The owner has the password on standard input."""
    logins = [word for word in words if not word.startswith("-")]
    password = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape").rstrip("\r\n")
    if len(logins) != 1 or not password:
        print('Not enough arguments (missing: "login"), or no password.', file=sys.stderr)
        return 1
    if "--create" not in words and not app.query("SELECT 1 FROM users WHERE login = :'login'", login=logins[0]):
        say(f"ERROR  There is no user {logins[0]}.")
        return 1
    upsert = """INSERT INTO users (login, password) VALUES (:'login', :'password')
        ON CONFLICT (login) DO UPDATE SET password = excluded.password"""
    app.query(upsert, login=logins[0], password=hashed(password))
    say(f"INFO  The password of {logins[0]} is set.")
    return 0


def seed(app: App, words: list[str]) -> int:
    """The demo data is there, or is not any more."""
    name = next((word.partition("=")[2] for word in words if word.startswith("--class=")), "DatabaseSeeder")
    sql = {
        "DemoSeeder": "INSERT INTO samples (name, demo) SELECT 'Demo sample ' || n, true FROM generate_series(1, 20) n",
        "DemoInverseSeeder": "DELETE FROM samples WHERE demo",
        "DatabaseSeeder": "SELECT 1",
    }.get(name.rpartition("\\")[2])
    if sql is None:
        say(f"Illuminate\\Contracts\\Container\\BindingResolutionException: Target class [{name}] does not exist.")
        return 1
    app.query(sql)
    say("INFO  Seeding database.")
    return 0


def artisan(app: App, words: list[str]) -> int:
    """Be `php artisan`."""
    commands = {"migrate": migrate, "migrate:status": migrate_status, "owner:password": owner_password, "db:seed": seed}
    name = next((word for word in words if not word.startswith("-")), "")
    rest = words[words.index(name) + 1 :] if name else words
    if name in ("", "about", "list"):
        print(f"Laravel Framework 10.48.0 (a stand-in); app {app.version}")
        return 0
    if name in QUIET_COMMANDS:
        say(f"INFO  {name}: done.")
        return 0
    if name not in commands:
        say(f'ERROR  Command "{name}" is not defined.')
        return 1
    try:
        app.note(f"artisan {name}")
        return commands[name](app, rest)
    except DatabaseError as error:
        print(f"\n   Illuminate\\Database\\QueryException\n\n  {error}\n", flush=True)
        return 1


# The web server.


def answer(app: App, method: str, path: str, body: bytes) -> tuple[int, str, str]:
    """Status, content type and text for one request."""
    try:
        return route(app, method, path.partition("?")[0], body)
    except DatabaseError as error:
        print(f"[error] {error}", flush=True)
        return 500, "text/plain", "Server Error\n"
    except (ValueError, KeyError, TypeError, AttributeError):
        return 422, "application/json", '{"message": "The given data was invalid."}\n'


def route(app: App, method: str, path: str, body: bytes) -> tuple[int, str, str]:
    """The app's few pages."""
    import json

    name = os.environ.get("APP_NAME", "Laravel")
    version = os.environ.get("APP_VERSION", app.version)
    if path == "/up":
        return (500 if app.version.startswith("9.9.9") else 200), "text/plain", "up\n"
    if path == "/":
        return 200, "text/html", f"<!doctype html><title>{escaped(name)}</title>{escaped(name)} {escaped(version)}\n"
    if path == "/login" and method == "POST":
        data = json.loads(body)
        stored = app.query("SELECT password FROM users WHERE login = :'login'", login=str(data["login"]))
        ok = bool(stored) and is_hash_of(stored, str(data["password"]))
        return (200 if ok else 401), "application/json", json.dumps({"ok": ok}) + "\n"
    if path == "/samples" and method == "POST":
        wanted = json.loads(body or b"{}").get("name", "Sample")
        number = app.query("INSERT INTO samples (name) VALUES (:'name') RETURNING id", name=str(wanted))
        app.note(f"sample {number}")
        return 201, "application/json", json.dumps({"id": int(number)}) + "\n"
    if path == "/samples/count":
        return 200, "application/json", json.dumps({"count": int(app.query("SELECT count(*) FROM samples"))}) + "\n"
    return 404, "text/plain", "Not Found\n"


def escaped(text: str) -> str:
    """Text as it stands in HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def follow(lock: str) -> None:
    """This process ends with the practice server, which holds the lock while it lives."""
    import fcntl

    with open(lock, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
    os._exit(137)


def serve(app: App, port: int, lock: str) -> int:
    """Answer HTTP on a port of the loopback until TERM."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        server_version = "alfa-stand-in"
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, kind, text = answer(app, self.command, self.path, body)
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = respond  # noqa: N815  # the base's names
        do_POST = respond  # noqa: N815
        do_HEAD = respond  # noqa: N815
        do_PUT = respond  # noqa: N815
        do_DELETE = respond  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
            print(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {format % args}", flush=True)

    threading.Thread(target=follow, args=(lock,), daemon=True).start()
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"INFO  Server running on [http://127.0.0.1:{port}], version {app.version}.", flush=True)
    server.serve_forever()
    return 0


def main() -> int:
    """Be what the arguments say."""
    version, psql, storage, lock, role, *words = sys.argv[1:]
    app = App(version, psql, storage)
    if role == "serve":
        import signal

        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        return serve(app, int(words[0]), lock)
    return artisan(app, words)


if __name__ == "__main__":
    sys.exit(main())
