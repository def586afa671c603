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

	"github.com/spf13/cobra"
)

// listing is an API list that is read page by page.
type listing struct {
	path   string
	query  url.Values
	cursor string // the query parameter for the next page; empty if there is only one
	limit  int
	all    bool
	noun   string // of the items, in plural, such as "events"

	next     json.RawMessage // from the last page
	searched string          // from the last page: how far back it searched
}

const (
	defaultLimit = 40
	pageLimit    = 1000 // the API's limit
	countPages   = 3    // read to count the items that are not shown
)

func (l *listing) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&l.limit, "limit", defaultLimit, "maximum number to print")
	f.BoolVar(&l.all, "all", false, "print all")
	cmd.MarkFlagsMutuallyExclusive("limit", "all")
}

func (l *listing) check() error {
	if l.limit < 1 {
		return &usageError{errors.New("--limit: expected 1 or more; use --all for no limit")}
	}
	return nil
}

// page is a page of any list.
type page struct {
	Items []json.RawMessage `json:"items"`
	Next  json.RawMessage   `json:"next"`
	// SearchedTo is how far back a search got that stopped early.
	SearchedTo string `json:"searched_to"`
}

// read reads one page of at most limit items and advances the query to the next one.
func (l *listing) read(ctx context.Context, c *client, limit int) (items []json.RawMessage, more bool, err error) {
	if l.cursor == "" { // there is only one page
		limit = pageLimit
	}
	l.query.Set("limit", strconv.Itoa(min(limit, pageLimit)))
	text, err := c.request(ctx, http.MethodGet, l.path, l.query, nil)
	if err != nil {
		return nil, false, err
	}
	var p page
	if err := json.Unmarshal(text, &p); err != nil || p.Items == nil {
		return nil, false, c.foreign("the response is not a list")
	}
	l.searched = p.SearchedTo
	if l.next = p.Next; l.cursor == "" || len(p.Next) == 0 {
		return p.Items, false, nil
	}
	l.query.Set(l.cursor, strings.Trim(string(p.Next), `"`))
	return p.Items, true, nil
}

// list prints a listing as a table or a JSON document. It reports if the listing is
// empty, and how many items it did not print.
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
			fmt.Fprintf(c.errOut, "searched back to %s, continuing\n", c.exact(l.searched))
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
			l.reportCut(c, cut, false)
		}
	}
	if c.json {
		return document.end(l.next)
	}
	if printed == 0 {
		fmt.Fprintf(c.errOut, "no %s%s\n", l.noun, l.filtered())
	}
	if more {
		return l.countRest(ctx, c)
	}
	return nil
}

// filtered returns " match" if the list has a filter, which may be why it is empty.
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

// countRest counts the items after the last printed page and reports their number.
func (l *listing) countRest(ctx context.Context, c *client) error {
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
	l.reportCut(c, n, more)
	return nil
}

// reportCut reports the number of items that were not printed.
func (l *listing) reportCut(c *client, n int, atLeast bool) {
	switch {
	case atLeast && n == 0:
		fmt.Fprintf(c.errOut, "older %s may also match; use --limit N or --all to search further\n", l.noun)
	case atLeast && l.searched != "":
		fmt.Fprintf(c.errOut, "at least %d more %s not shown; use --limit N or --all\n", n, l.noun)
	case atLeast:
		fmt.Fprintf(c.errOut, "more than %d more %s not shown; use --limit N or --all\n", n, l.noun)
	case n == 1:
		fmt.Fprintln(c.errOut, "1 more not shown; use --limit N or --all")
	case n > 1:
		fmt.Fprintf(c.errOut, "%d more %s not shown; use --limit N or --all\n", n, l.noun)
	}
}

// jsonList prints items as one JSON document, as they arrive.
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
