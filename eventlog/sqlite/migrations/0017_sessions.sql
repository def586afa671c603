-- +goose Up
-- Who is signed in to the console: hashes of cookies, and proofs of tokens.
CREATE TABLE tidings_sessions (
	hash TEXT PRIMARY KEY,
	proof TEXT NOT NULL,
	actor TEXT NOT NULL,
	user_id TEXT NOT NULL,
	role TEXT NOT NULL,
	address TEXT NOT NULL,
	since INTEGER NOT NULL,
	used INTEGER NOT NULL
) WITHOUT ROWID;
