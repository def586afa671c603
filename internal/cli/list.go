package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// listing is a list of the API, which is read page by page.
type listing struct {
	path   string
	query  url.Values
	cursor string // the query parameter of the next page; empty where there is one page
	limit  int
	all    bool
	// things are what the list holds, such as "events".
	things string

	next     json.RawMessage // as the last page says
	searched string          // likewise, how far back it looked
}

const (
	defaultLimit = 40
	pageLimit    = 1000 // of the API
	countPages   = 3    // that are read to count what is not shown
)

func (l *listing) flags(f *pflag.FlagSet) {
	f.IntVar(&l.limit, "limit", defaultLimit, "so many at most")
	f.BoolVar(&l.all, "all", false, "all, without a limit")
}

func (l *listing) check() error {
	if l.limit < 1 {
		return &usageError{errors.New("--limit: expected 1 or more; --all prints all")}
	}
	return nil
}

// page is a page of any list.
type page struct {
	Items []json.RawMessage `json:"items"`
	Next  json.RawMessage   `json:"next"`
	// SearchedTo is how far back the search went that ended early.
	SearchedTo string `json:"searched_to"`
}

// read reads one page of at most so many, and moves the query to the next one.
func (l *listing) read(ctx context.Context, c *client, most int) (items []json.RawMessage, more bool, err error) {
	if l.cursor == "" { // everything there is comes at once
		most = pageLimit
	}
	l.query.Set("limit", strconv.Itoa(min(most, pageLimit)))
	text, err := c.request(ctx, http.MethodGet, l.path, l.query, nil)
	if err != nil {
		return nil, false, err
	}
	var p page
	if err := json.Unmarshal(text, &p); err != nil || p.Items == nil {
		return nil, false, c.foreign("its answer is no list")
	}
	l.searched = p.SearchedTo
	if l.next = p.Next; l.cursor == "" || len(p.Next) == 0 {
		return p.Items, false, nil
	}
	l.query.Set(l.cursor, strings.Trim(string(p.Next), `"`))
	return p.Items, true, nil
}

// list prints a list: rows of a table, or a JSON document. It says if there is nothing,
// and how many there are that it does not print.
func list[T any](ctx context.Context, c *client, l listing, columns []column, row func(*T) []string) error {
	if err := l.check(); err != nil {
		return err
	}
	if l.query == nil {
		l.query = url.Values{}
	}
	rows := newTable(c.out, columns...)
	document := &jsonList{out: c.out}
	printed, more := 0, true
	for more && (l.all || printed < l.limit) {
		most := pageLimit
		if !l.all {
			most = l.limit - printed
		}
		var items []json.RawMessage
		var err error
		if items, more, err = l.read(ctx, c, most); err != nil {
			return err
		}
		if more && l.searched != "" && (l.all || printed+len(items) < l.limit) {
			fmt.Fprintf(c.errOut, "looked back to %s, looking further\n", c.exact(l.searched))
		}
		cut := 0
		if !l.all && len(items) > most {
			items, cut = items[:most], len(items)-most
		}
		printed += len(items)
		if c.json {
			err = document.add(items)
		} else {
			err = printRows(rows, items, row)
		}
		if err != nil {
			return err
		}
		if cut > 0 && !c.json {
			l.sayCut(c, cut, false)
		}
	}
	if c.json {
		return document.end(l.next)
	}
	if printed == 0 {
		fmt.Fprintf(c.errOut, "no %s%s\n", l.things, l.filtered())
	}
	if more {
		return l.sayMore(ctx, c)
	}
	return nil
}

// filtered says that a list has a filter, which may be why it is empty.
func (l *listing) filtered() string {
	for name := range l.query {
		if name != "limit" && name != "dead" && name != l.cursor {
			return " match"
		}
	}
	return ""
}

func printRows[T any](t *table, items []json.RawMessage, row func(*T) []string) error {
	rows := make([][]string, len(items))
	for i, item := range items {
		one := new(T)
		if err := json.Unmarshal(item, one); err != nil {
			return err
		}
		rows[i] = row(one)
	}
	return t.print(rows)
}

// sayMore says how many items were not printed.
func (l *listing) sayMore(ctx context.Context, c *client) error {
	n, more := 0, true
	for range countPages {
		items, next, err := l.read(ctx, c, pageLimit)
		if err != nil {
			return err
		}
		n, more = n+len(items), next
		if !more {
			break
		}
	}
	l.sayCut(c, n, more)
	return nil
}

func (l *listing) sayCut(c *client, n int, atLeast bool) {
	switch {
	case atLeast && n == 0:
		fmt.Fprintf(c.errOut, "older %s may match, too; --limit N or --all looks for them\n", l.things)
	case atLeast && l.searched != "":
		fmt.Fprintf(c.errOut, "there are at least %d more %s; --limit N or --all prints them\n", n, l.things)
	case atLeast:
		fmt.Fprintf(c.errOut, "there are more than %d more %s; --limit N or --all prints them\n", n, l.things)
	case n == 1:
		fmt.Fprintf(c.errOut, "there is 1 more of these %s; --limit N or --all prints it\n", l.things)
	case n > 1:
		fmt.Fprintf(c.errOut, "there are %d more %s; --limit N or --all prints them\n", n, l.things)
	}
}

// jsonList prints items as one document as they come.
type jsonList struct {
	out   io.Writer
	begun bool
}

func (j *jsonList) add(items []json.RawMessage) error {
	var text bytes.Buffer
	for _, item := range items {
		if !j.begun {
			text.WriteString(`{"items":[`)
		} else {
			text.WriteByte(',')
		}
		j.begun = true
		text.Write(item)
	}
	_, err := j.out.Write(text.Bytes())
	return err
}

func (j *jsonList) end(next json.RawMessage) error {
	text := "]"
	if !j.begun {
		text = `{"items":[]`
	}
	if len(next) > 0 {
		text += `,"next":` + string(next)
	}
	_, err := io.WriteString(j.out, text+"}\n")
	return err
}
