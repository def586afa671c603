import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;

/** Changes and events in one transaction, with PostgreSQL's JDBC driver. */
class Jdbc {
    public static void main(String[] args) throws SQLException {
        int first = Integer.parseInt(args[1]), rounds = Integer.parseInt(args[2]);
        try (Connection db = DriverManager.getConnection(args[0])) {
            db.setAutoCommit(false);
            for (int paid = first; paid < first + 10 * rounds; paid += 10) {
                int gifted = paid + 1, gone = paid + 2;
                run(db, "SET LOCAL tidings.user_id = 'ann'");
                run(db, "INSERT INTO invoices (id) VALUES (?)", paid);
                run(db, "SELECT tidings.emit('invoice', 'paid', ?)", "" + paid);
                db.commit();

                run(db, "SELECT set_config('tidings.user_id', ?, true)", "bob");
                run(db, "INSERT INTO invoices (id) VALUES (?)", gifted);
                run(db, "SELECT tidings.emit('invoice', 'paid', ?, url => ?, user_id => ?)",
                    "" + gifted, "/gifts/" + gifted, "carol");
                db.commit();

                run(db, "SET LOCAL tidings.user_id = 'mallory'");
                run(db, "INSERT INTO invoices (id) VALUES (?)", gone);
                run(db, "SELECT tidings.emit('invoice', 'paid', ?)", "" + gone);
                db.rollback();

                run(db, "UPDATE invoices SET status = 'voided' WHERE id = ?", paid);
                run(db, "SELECT tidings.emit('invoice', 'voided', ?)", "" + paid);
                db.commit();

                try {
                    run(db, "INSERT INTO invoices (id) VALUES (?)", gone);
                    run(db, "SELECT tidings.emit('invoice', 'lost', ?)", "" + gone);
                    throw new IllegalStateException("an unknown action was emitted");
                } catch (SQLException e) {
                    if (!e.getSQLState().equals("22023") || !e.getMessage().contains("paid")) {
                        throw e;
                    }
                    db.rollback();
                }
            }
        }
    }

    private static void run(Connection db, String sql, Object... values) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(sql)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            statement.execute();
        }
    }
}
