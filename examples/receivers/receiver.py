#!/usr/bin/env python3
"""A receiver of Tidings' webhooks: Python 3.9 or later, standard library only.

    WEBHOOK_SECRET=whsec_… TIDINGS_URL=https://… TIDINGS_TOKEN=… python3 receiver.py

It verifies each webhook, acts on it once, ignores what is older than what it
knows, and at the start (and every five minutes) reads what it missed.
"""
import base64
import hashlib
import hmac
import json
import os
import re
import sqlite3
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Several secrets, separated by spaces, while one is being replaced.
KEYS = [base64.b64decode(s.removeprefix("whsec_"), validate=True) for s in os.environ["WEBHOOK_SECRET"].split()]
if min(map(len, KEYS), default=0) < 24:
    raise SystemExit("WEBHOOK_SECRET: expected whsec_ and base64 of 24 to 64 bytes")
HOST, PORT = os.environ.get("LISTEN", "127.0.0.1:8080").rsplit(":", 1)
TOLERANCE = 5 * 60  # seconds
BODY_LIMIT, DRAIN_LIMIT = 64 * 1024, 4 * 1024 * 1024
MEMBERS = ("event", "resource_type", "resource_id", "resource_url", "timestamp")
observed = []  # what act was called with; for tests


def act(event):
    """Your work. Be quick (put it into a queue); an exception makes Tidings try again."""
    if event["event"].endswith(".deleted"):
        print(f"forget {event['resource_url']}", flush=True)
    else:
        print(f"look again at {event['resource_url']}", flush=True)  # GET it with your token


def read_everything_again():
    """Called if events expired before this receiver read them."""
    print("read all resources again", flush=True)


# --- Storage: replace it by your database. One transaction contains the check, the work and the memory.
database = sqlite3.connect(os.environ.get("STATE", "receiver.db"), check_same_thread=False, isolation_level=None)
database.executescript("""
    CREATE TABLE IF NOT EXISTS handled (id TEXT PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS newest (resource TEXT PRIMARY KEY, version INTEGER, time TEXT);
    CREATE TABLE IF NOT EXISTS feed (position TEXT);
""")
lock = threading.Lock()


def handle_once(event):
    resource = event["resource_type"] + "/" + event["resource_id"]
    version, when = event["version"], event["timestamp"].removesuffix("Z")  # without Z, it sorts as text
    with lock:
        database.execute("BEGIN IMMEDIATE")
        try:
            if database.execute("INSERT OR IGNORE INTO handled VALUES (?)", (event["id"],)).rowcount:
                newest = database.execute("SELECT version, time FROM newest WHERE resource = ?", (resource,)).fetchone()
                if not newest or not is_older(version, when, *newest):
                    act(event)
                    observed.append(event["id"])
                    if newest:
                        when = max(when, newest[1])
                    database.execute("REPLACE INTO newest VALUES (?, ?, ?)", (resource, version, when))
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise


def is_older(version, when, newest_version, newest_time):
    # Both must agree: versions start again after a restored backup, and clocks of servers differ.
    return 0 < version < newest_version and when <= newest_time


# --- Verification
def is_authentic(headers, body):
    webhook_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not webhook_id or not is_number(stamp) or abs(time.time() - int(stamp)) > TOLERANCE:
        return False
    content = f"{webhook_id}.{stamp}.".encode() + body
    expected = [b"v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)) for key in KEYS]
    entries = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(entry, e) for entry in entries for e in expected)


def is_number(text):
    return bool(re.fullmatch("[0-9]{1,18}", text))


def decode(webhook_id, version, body):
    event = json.loads(body)
    if not isinstance(event, dict) or not all(isinstance(event.get(m), str) and event[m] for m in MEMBERS):
        raise ValueError("not an event in the thin format")
    return event | {"id": webhook_id, "version": int(version) if is_number(version) else 0}


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds for a client to send something

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not is_number(length) or int(length) > DRAIN_LIMIT:
            self.close_connection = True
            return self.answer(411)
        body = self.rfile.read(int(length))  # even if it is too large, so that the sender gets the answer
        if len(body) < int(length):  # the connection closed
            self.close_connection = True
            return
        if len(body) > BODY_LIMIT:
            return self.answer(413)
        if not is_authentic(self.headers, body):
            return self.answer(401)
        try:
            event = decode(self.headers["webhook-id"], self.headers.get("tidings-resource-version", ""), body)
        except ValueError:
            return self.answer(400)
        if event["event"] != "webhook.ping":  # an operator's test
            try:
                handle_once(event)
            except Exception as e:
                print(f"{event['event']}: {e}", flush=True)
                return self.answer(500)
        self.answer(204)

    def do_GET(self):
        if self.path == "/handled" and os.environ.get("OBSERVE"):  # for tests alone
            return self.answer(200, json.dumps({"handled": observed}).encode())
        self.answer(404)

    def answer(self, status, body=b""):
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


# --- Catching up
def catch_up():
    row = database.execute("SELECT position FROM feed").fetchone()
    after = row[0] if row else ""
    while True:
        query = urllib.parse.urlencode({"limit": 500} | ({"after": after} if after else {}))
        request = urllib.request.Request(os.environ["TIDINGS_URL"] + "/api/v1/events?" + query)
        request.add_header("Authorization", "Bearer " + os.environ["TIDINGS_TOKEN"])
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                page = json.load(response)
        except urllib.error.HTTPError as e:
            if e.code != 410:
                raise
            read_everything_again()
            page = {"items": [], "next": json.load(e)["after"]}
            done = False
        else:
            done = not page["items"] and not page["more"]
        for event in page["items"]:
            handle_once(event | {"version": event["resource_version"]})
        after = page["next"]
        with lock:
            database.execute("DELETE FROM feed")
            database.execute("INSERT INTO feed VALUES (?)", (after,))
        if done:
            return


def catch_up_forever():
    while True:
        try:
            catch_up()
        except Exception as e:
            print(f"catching up: {e}", flush=True)
        time.sleep(5 * 60)


if __name__ == "__main__":
    if os.environ.get("TIDINGS_URL"):
        threading.Thread(target=catch_up_forever, daemon=True).start()
    Server((HOST, int(PORT)), Receiver).serve_forever()
