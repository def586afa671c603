"""Changes and events in one transaction, with psycopg 3."""
import sys

import psycopg

url, first, rounds, pooled = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "true"
db = psycopg.connect(url, autocommit=True)
if pooled:
    db.prepare_threshold = None  # PgBouncer before 1.21 has no prepared statements in transaction mode
for paid in range(first, first + 10 * rounds, 10):
    gifted, gone = paid + 1, paid + 2
    with db.transaction():
        db.execute("SET LOCAL tidings.user_id = 'ann'")
        db.execute("INSERT INTO invoices (id) VALUES (%s)", [paid])
        db.execute("SELECT tidings.emit('invoice', 'paid', %s)", [str(paid)])
    with db.transaction():
        db.execute("SELECT set_config('tidings.user_id', %s, true)", ["bob"])
        db.execute("INSERT INTO invoices (id) VALUES (%s)", [gifted])
        db.execute("SELECT tidings.emit('invoice', 'paid', %s, url => %s, user_id => %s)",
                   [str(gifted), f"/gifts/{gifted}", "carol"])
    with db.transaction(force_rollback=True):
        db.execute("SET LOCAL tidings.user_id = 'mallory'")
        db.execute("INSERT INTO invoices (id) VALUES (%s)", [gone])
        db.execute("SELECT tidings.emit('invoice', 'paid', %s)", [str(gone)])
    with db.transaction():
        db.execute("UPDATE invoices SET status = 'voided' WHERE id = %s", [paid])
        db.execute("SELECT tidings.emit('invoice', 'voided', %s)", [str(paid)])
    try:
        with db.transaction():
            db.execute("INSERT INTO invoices (id) VALUES (%s)", [gone])
            db.execute("SELECT tidings.emit('invoice', 'lost', %s)", [str(gone)])
        sys.exit("an unknown action was emitted")
    except psycopg.errors.InvalidParameterValue as error:  # 22023
        assert "paid" in str(error), error
db.close()
