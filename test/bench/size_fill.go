package main

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// grown is a log to measure.
type grown struct {
	events int64
	days   int64 // what it spans; on PostgreSQL, each has a partition
}

const dayMicros = int64(24 * time.Hour / time.Microsecond)

// Every event has an id and a resource that follow from its position, so that queries and
// the history know them.
const (
	eventIDPrefix = "01900000-0000-7000-8000-"
	resourceStart = "550e8400-e29b-41d4-a716-"
	// rareEvery is the distance of the events of a rare type, connector.
	rareEvery = 100_000
	// blockEvents is how many events a block of the history spans. It holds ten of their
	// attempts only, not all: enough for PostgreSQL to keep the text outside of the row.
	blockEvents = 400
	parkedEvery = 5000 // events of which one is a dead letter
	endpointsOf = 20
)

func eventID(sequence int64) string    { return fmt.Sprintf("%s%012d", eventIDPrefix, sequence) }
func resourceID(sequence int64) string { return fmt.Sprintf("%s%012d", resourceStart, sequence/4) }

// eventValues is the SQL of the columns of the event at position i, without its times.
func eventValues(digits string) string {
	padded := func(value string) string { return strings.ReplaceAll(digits, "?", value) }
	return "i, '" + eventIDPrefix + "' || " + padded("i") + ", CASE WHEN i % " + fmt.Sprint(rareEvery) +
		" = 50 THEN 'connector' WHEN i % 20 < 8 THEN 'provider' WHEN i % 20 < 12 THEN 'context' WHEN i % 20 < 16 " +
		"THEN 'file' ELSE 'vector_store' END, CASE i % 4 WHEN 0 THEN 'created' WHEN 3 THEN 'deleted' ELSE 'updated' END, '" +
		resourceStart + "' || " + padded("i / 4") + ", '/api/v1/resources/" + resourceStart + "' || " + padded("i / 4") +
		", '660e8400-e29b-41d4-a716-' || " + padded("i % 1000") + ", i % 4 + 1, '', ''"
}

const eventNames = "seq, id, resource_type, action, resource_id, resource_url, user_id, resource_version, owner_id, " +
	"trace, at, logged_at"

// fillLog writes the events of each day in a statement, and the rest of the tables.
func fillLog(ctx context.Context, d database, db *sql.DB, g grown) error {
	var until int64
	err := db.QueryRowContext(ctx, "SELECT "+map[bool]string{
		true:  "split_part(relname, '_', 4)::bigint FROM pg_class WHERE relname LIKE 'tidings_events_0_%' AND relkind = 'r'",
		false: "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
	}[d.url != ""]).Scan(&until)
	if err != nil {
		return err
	}
	if d.url != "" { // the partitions of before the first start
		for _, table := range []string{"events", "history"} {
			if _, err := db.ExecContext(ctx, `DO $$ DECLARE part text; BEGIN
				SELECT relname INTO STRICT part FROM pg_class WHERE relname LIKE 'tidings_`+table+`_0_%' AND relkind = 'r';
				EXECUTE 'DROP TABLE tidings.' || part; END $$`); err != nil {
				return err
			}
		}
	}
	var days errgroup.Group
	days.SetLimit(map[bool]int{true: runtime.NumCPU() + 1, false: 1}[d.url != ""])
	for day := range g.days {
		begin := until - (g.days-day)*dayMicros
		first, last := day*g.events/g.days+1, (day+1)*g.events/g.days
		at := fmt.Sprintf("%d + (i - %d) * %d", begin, first, dayMicros/(last-first+1))
		days.Go(func() error {
			if d.url == "" {
				_, err := db.ExecContext(ctx, fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n "+
					"WHERE i < %d) INSERT INTO tidings_events (%s) SELECT %s, %s - 2000, %[5]s FROM n",
					first, last, eventNames, eventValues("printf('%012d', ?)"), at))
				return err
			}
			return fillDay(ctx, db, begin, fmt.Sprintf("INSERT INTO tidings.tidings_events_%d_%d (%s) SELECT %s, %s - 2000, "+
				"%[5]s FROM generate_series(%[6]d::bigint, %[7]d) n(i)",
				begin, begin+dayMicros, eventNames, eventValues("lpad((?)::text, 12, '0')"), at, first, last))
		})
	}
	if err := days.Wait(); err != nil {
		return err
	}
	return fillRest(ctx, d, db, g, until)
}

// fillDay writes a partition without its indexes, which are created afterwards.
func fillDay(ctx context.Context, db *sql.DB, begin int64, insert string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // no-op after a commit
	end := begin + dayMicros
	bounds := fmt.Sprintf("FOR VALUES FROM (%d) TO (%d)", begin, end)
	events, history := fmt.Sprintf("tidings.tidings_events_%d_%d", begin, end),
		fmt.Sprintf("tidings.tidings_history_%d_%d", begin, end)
	for _, statement := range []string{
		"SET LOCAL maintenance_work_mem = '512MB'",
		fmt.Sprintf("CREATE TABLE %s (LIKE tidings.tidings_events INCLUDING DEFAULTS, CHECK (logged_at >= %d "+
			"AND logged_at < %d))", events, begin, end),
		insert,
		"ALTER TABLE " + events + " ADD PRIMARY KEY (seq, logged_at)",
		"CREATE INDEX ON " + events + " (id)",
		"ALTER TABLE tidings.tidings_events ATTACH PARTITION " + events + " " + bounds,
		"CREATE TABLE " + history + " PARTITION OF tidings.tidings_history " + bounds,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%.60s: %w", statement, err)
		}
	}
	return tx.Commit()
}

// record is a line of the history; @ stands for the position without its last digit, and
// # for the same with 11 digits.
func record(digit int, outcome string, status int) string {
	return fmt.Sprintf(`{"at":"2026-03-26T12:00:00Z","sequence":@%[1]d,"event_id":"%[2]s#%[1]d",`+
		`"event":"provider.updated","resource":"provider/%[3]s#%[1]d","outcome":"%[4]s","attempt":1,"status":%[5]d,"address":"192.0.2.1:443",`+
		`"first_byte_us":2100,"total_us":2300}`+"\n", digit, eventIDPrefix, resourceStart, outcome, status)
}

// numbers is the start of a statement: a table n of the numbers i from 1 to last.
func numbers(last int64) string {
	return fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT CAST(1 AS bigint) UNION ALL SELECT i + 1 FROM n "+
		"WHERE i < %d) ", last)
}

// fillRest writes what belongs to the events: cursors, history, dead letters, states and
// samples of endpoints.
func fillRest(ctx context.Context, d database, db *sql.DB, g grown, until int64) error {
	s, digits := d.schema(), "printf('%011d', ?)"
	if d.url != "" {
		digits = "lpad((?)::text, 11, '0')"
	}
	begin, blocks := until-g.days*dayMicros, g.events/blockEvents
	var delivered, refused strings.Builder
	for digit := range 10 {
		delivered.WriteString(record(digit, "delivered", 204))
		refused.WriteString(record(digit, map[bool]string{true: "refused", false: "delivered"}[digit == 0], 422))
	}
	k := fmt.Sprintf("((i - 1) * %d + 1)", blockEvents/10)
	at := fmt.Sprintf("(%d + (i - 1) * %d)", begin, g.days*dayMicros/blocks)
	statements := []string{
		fmt.Sprintf(numbers(endpointsOf)+"INSERT INTO %stidings_cursors (endpoint, part, parts, seq, saved_at, "+
			"owner, generation, status) SELECT "+
			"CASE i WHEN 1 THEN 'current' WHEN 2 THEN 'steady' WHEN 3 THEN 'behind' ELSE 'customer-' || i END, 0, 1, "+
			"CASE i WHEN 3 THEN %d ELSE %d END, %d, '', 0, '' FROM n", s, g.events/10, g.events, until),
		fmt.Sprintf(numbers(g.events/parkedEvery)+"INSERT INTO %stidings_retries (endpoint, %s, attempts, first_at, "+
			"next_at, dead_at, reason, lane) SELECT 'current', %s, 16, 1, 0, %d, 'http_422', 0 FROM (SELECT i * %d AS i FROM n) n",
			s, strings.TrimSuffix(eventNames, ", logged_at"),
			eventValues(strings.Replace(digits, "11", "12", 1))+fmt.Sprint(", ", begin), until, parkedEvery),
		fmt.Sprintf(numbers(24*g.days)+"INSERT INTO %stidings_states (endpoint, part, at, state, reason, detail, actor, "+
			"comment) SELECT endpoint, 0, %d + i * %d, CASE i %% 2 WHEN 0 THEN 'healthy' ELSE 'degraded' END, '', '', '', '' "+
			"FROM n CROSS JOIN %[1]stidings_cursors", s, begin, dayMicros/24),
	}
	for i, endpoint := range []string{"current", "steady"} { // an endpoint with failures, and one without
		text := "'" + delivered.String() + "'"
		failures := "0"
		if i == 0 {
			text = "CASE i % 100 WHEN 0 THEN '" + refused.String() + "' ELSE " + text + " END"
			failures = "CASE i % 100 WHEN 0 THEN 1 ELSE 0 END"
		}
		statements = append(statements, fmt.Sprintf(numbers(blocks)+"INSERT INTO %stidings_history (endpoint, first_at, "+
			"last_at, lowest, highest, records, failures, records_text, written_at) SELECT '%s', %s, %[3]s + 1000, "+
			"(i - 1) * %[4]d + 1, i * %[4]d, 10, %[5]s, replace(replace(%[6]s, '@', %[7]s), '#', %[8]s), %[3]s + 2000 FROM n",
			s, endpoint, at, blockEvents, failures, text, "CAST("+k+" AS text)", strings.ReplaceAll(digits, "?", k)))
	}
	if d.url != "" {
		statements = append(statements, fmt.Sprintf("UPDATE tidings.tidings_head SET seq = %d", g.events))
	}
	statements = append(statements, map[bool]string{true: "VACUUM (ANALYZE)", false: "PRAGMA optimize"}[d.url != ""])
	for _, statement := range statements {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%.120s: %w", statement, err)
		}
	}
	return fillSamples(ctx, d, db)
}

// fillSamples writes the samples of all endpoints for as long as they are kept, whatever
// the size of the log.
func fillSamples(ctx context.Context, d database, db *sql.DB) error {
	var columns, values []string
	for _, name := range []string{"answer", "delay"} {
		for i := range 12 {
			columns, values = append(columns, fmt.Sprintf("%s_%d", name, i)), append(values, "3")
		}
	}
	_, err := db.ExecContext(ctx, numbers(7*24*60-10)+fmt.Sprintf("INSERT INTO %stidings_series (endpoint, minute, "+
		"delivered, failed, waiting, oldest, %s) SELECT endpoint, %d - i, 30, 1, 0, 0, %s "+
		"FROM n CROSS JOIN %[1]stidings_cursors", d.schema(), strings.Join(columns, ", "),
		time.Now().Unix()/60, strings.Join(values, ", ")))
	return err
}
