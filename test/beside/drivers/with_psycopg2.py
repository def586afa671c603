"""Changes and events in one transaction, with psycopg2."""
import sys

import psycopg2

url, first, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
db = psycopg2.connect(url)
for paid in range(first, first + 10 * rounds, 10):
    gifted, gone = paid + 1, paid + 2
    with db, db.cursor() as cursor:
        cursor.execute("SET LOCAL tidings.user_id = %s", ["ann"])
        cursor.execute("INSERT INTO invoices (id) VALUES (%s)", [paid])
        cursor.execute("SELECT tidings.emit('invoice', 'paid', %s)", [str(paid)])
    with db, db.cursor() as cursor:
        cursor.execute("SELECT set_config('tidings.user_id', %s, true)", ["bob"])
        cursor.execute("INSERT INTO invoices (id) VALUES (%s)", [gifted])
        cursor.execute("SELECT tidings.emit('invoice', 'paid', %s, url => %s, user_id => %s)",
                       [str(gifted), f"/gifts/{gifted}", "carol"])
    with db.cursor() as cursor:
        cursor.execute("SET LOCAL tidings.user_id = 'mallory'")
        cursor.execute("INSERT INTO invoices (id) VALUES (%s)", [gone])
        cursor.execute("SELECT tidings.emit('invoice', 'paid', %s)", [str(gone)])
    db.rollback()
    with db, db.cursor() as cursor:
        cursor.execute("UPDATE invoices SET status = 'voided' WHERE id = %s", [paid])
        cursor.execute("SELECT tidings.emit('invoice', 'voided', %s)", [str(paid)])
    try:
        with db, db.cursor() as cursor:
            cursor.execute("INSERT INTO invoices (id) VALUES (%s)", [gone])
            cursor.execute("SELECT tidings.emit('invoice', 'lost', %s)", [str(gone)])
        sys.exit("an unknown action was emitted")
    except psycopg2.errors.InvalidParameterValue as error:  # 22023
        assert "paid" in str(error), error
db.close()
