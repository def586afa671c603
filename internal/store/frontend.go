package store

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tidings-dev/tidings/eventlog"
)

const beginText = "begin isolation level read committed"

// beginMessages begin a transaction. PostgreSQL answers them at once, even if the
// statement behind them takes long, and skips that statement if they fail.
var beginMessages = []pgproto3.FrontendMessage{
	&pgproto3.Parse{Query: beginText}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{},
}

var beginBytes = func() (b []byte) {
	for _, m := range beginMessages {
		b, _ = m.Encode(b) // fails only for texts that are too long
	}
	return b
}()

// beginTime is how long the answer to a BEGIN may take before the connection counts as
// silent.
const beginTime = 10 * time.Second

// buildFrontend returns a function for [pgconn.Config] that hides the answers to
// beginMessages at the start of a message, of which pgx knows nothing. silent is called
// if they take too long.
func buildFrontend(silent func()) pgconn.BuildFrontendFunc {
	return func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		f := &frontend{r: r, w: w, silent: silent}
		return pgproto3.NewFrontend(f, f)
	}
}

// frontend is a stream of messages of PostgreSQL's protocol: a type, a length and a body.
type frontend struct {
	r      io.Reader
	w      io.Writer
	silent func()
	timer  *time.Timer // runs until the BEGIN is answered
	late   atomic.Bool // the timer has fired

	beginning bool
	hidden    bool    // whether pgx does not get the current message
	head      [5]byte // its type and length
	got       int     // how much of head was read
	left      int     // how much of its body was not
}

// Write implements [io.Writer].
func (f *frontend) Write(p []byte) (int, error) {
	if bytes.HasPrefix(p, beginBytes) {
		f.beginning = true
		f.timer = time.AfterFunc(beginTime, func() {
			f.late.Store(true)
			f.silent()
			if c, ok := f.w.(io.Closer); ok {
				_ = c.Close() // ends the read
			}
		})
	}
	return f.w.Write(p)
}

// Read implements [io.Reader].
func (f *frontend) Read(p []byte) (int, error) {
	for {
		n, err := f.r.Read(p)
		if err != nil && f.beginning {
			f.timer.Stop()
			if f.late.Load() {
				err = &eventlog.UnavailableError{Reason: "the database did not begin a transaction in time", Err: err}
			}
		}
		if n = f.hide(p[:n]); n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// hide moves what pgx gets to the start of b and returns its length.
func (f *frontend) hide(b []byte) (kept int) {
	for in := b; len(in) > 0; {
		var part []byte
		if f.got < len(f.head) {
			if f.got == 0 {
				f.hidden = f.answersBegin(in[0])
			}
			n := copy(f.head[f.got:], in)
			part, in = in[:n], in[n:]
			if f.got += n; f.got == len(f.head) {
				f.left = max(int(binary.BigEndian.Uint32(f.head[1:]))-4, 0)
			}
		} else {
			n := min(f.left, len(in))
			part, in = in[:n], in[n:]
			f.left -= n
		}
		if !f.hidden {
			kept += copy(b[kept:], part)
		}
		if f.got == len(f.head) && f.left == 0 {
			f.got = 0
		}
	}
	return kept
}

// answersBegin reports whether a message of a type answers beginMessages.
func (f *frontend) answersBegin(kind byte) bool {
	if !f.beginning {
		return false
	}
	switch kind {
	case '1', '2': // ParseComplete, BindComplete
		return true
	case 'C', 'E': // CommandComplete, which is the last; ErrorResponse, which pgx gets
		f.beginning = false
		f.timer.Stop()
		return kind == 'C'
	}
	return false // such as a notice
}
