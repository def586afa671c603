-- +goose Up
-- Who paused an endpoint, why, and when the pause ends automatically; 0 if it does not.
ALTER TABLE tidings_controls ADD COLUMN actor TEXT NOT NULL DEFAULT '';
ALTER TABLE tidings_controls ADD COLUMN comment TEXT NOT NULL DEFAULT '';
ALTER TABLE tidings_controls ADD COLUMN until_at INTEGER NOT NULL DEFAULT 0;

-- What operators did.
CREATE TABLE tidings_actions (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	at INTEGER NOT NULL,
	actor TEXT NOT NULL,
	action TEXT NOT NULL,
	endpoint TEXT NOT NULL,
	subject TEXT NOT NULL,
	comment TEXT NOT NULL
);
CREATE INDEX tidings_actions_endpoint ON tidings_actions (endpoint, id);

-- Changes of an endpoint's state.
CREATE TABLE tidings_states (
	endpoint TEXT NOT NULL,
	part INTEGER NOT NULL,
	at INTEGER NOT NULL,
	state TEXT NOT NULL,
	reason TEXT NOT NULL,
	detail TEXT NOT NULL,
	actor TEXT NOT NULL,
	comment TEXT NOT NULL,
	PRIMARY KEY (endpoint, part, at)
) WITHOUT ROWID;
CREATE INDEX tidings_states_at ON tidings_states (at);

-- What happened within a minute at an endpoint, or at all of them (''). The columns of
-- the histograms are the numbers of durations up to a bound, see eventlog.Histogram.
CREATE TABLE tidings_series (
	endpoint TEXT NOT NULL,
	minute INTEGER NOT NULL,
	delivered INTEGER NOT NULL,
	failed INTEGER NOT NULL,
	waiting INTEGER NOT NULL,
	oldest INTEGER NOT NULL,
	answer_0 INTEGER NOT NULL, answer_1 INTEGER NOT NULL, answer_2 INTEGER NOT NULL,
	answer_3 INTEGER NOT NULL, answer_4 INTEGER NOT NULL, answer_5 INTEGER NOT NULL,
	answer_6 INTEGER NOT NULL, answer_7 INTEGER NOT NULL, answer_8 INTEGER NOT NULL,
	answer_9 INTEGER NOT NULL, answer_10 INTEGER NOT NULL, answer_11 INTEGER NOT NULL,
	delay_0 INTEGER NOT NULL, delay_1 INTEGER NOT NULL, delay_2 INTEGER NOT NULL,
	delay_3 INTEGER NOT NULL, delay_4 INTEGER NOT NULL, delay_5 INTEGER NOT NULL,
	delay_6 INTEGER NOT NULL, delay_7 INTEGER NOT NULL, delay_8 INTEGER NOT NULL,
	delay_9 INTEGER NOT NULL, delay_10 INTEGER NOT NULL, delay_11 INTEGER NOT NULL,
	PRIMARY KEY (endpoint, minute)
) WITHOUT ROWID;
CREATE INDEX tidings_series_minute ON tidings_series (minute);
