package eventlog

import "context"

// Database describes the database of a log.
type Database struct {
	// Kind is "sqlite" or "postgresql".
	Kind, Version string
	// Schema holds the tables of the log; empty on SQLite.
	Schema string
	// Primary reports whether it can be written to.
	Primary bool
	// Size is the size of the whole database in bytes.
	Size int64
	// InUse and Most are the connections of this process's pool, now and at most; 0 means
	// no limit.
	InUse, Most int
}

// Describer describes the database.
type Describer interface {
	Describe(ctx context.Context) (Database, error)
}
