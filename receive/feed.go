package receive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tidings-dev/tidings"
)

const (
	feedPageSize  = 500
	feedPageLimit = 16 << 20 // bytes
	feedTimeout   = time.Minute
)

// Feed reads events that a receiver missed from a server.
type Feed struct {
	URL   string // of the server, such as https://tidings.example.com
	Token string // an API token with the role reader
	// Types are patterns such as "provider.*"; empty means all events.
	Types []string
	// Client makes the requests; the default has a timeout of a minute.
	Client *http.Client
}

// ExpiredError says that the feed no longer has events that the receiver has
// not read: it must read all resources again, store After with
// [Storage.SetCursor], and catch up from there.
type ExpiredError struct{ After string }

// Error implements error.
func (e *ExpiredError) Error() string {
	return "events expired before they were read: read all resources again, and continue after " + e.After
}

// CatchUp hands every event since the last call to the handler, whose storage
// also keeps the cursor: events that arrived as webhooks, too, are duplicates.
// The first call begins with the oldest event of the log. Call it when the
// program starts and every few minutes. It returns how many events it read, and
// the first error, after which the next call continues; see [ExpiredError].
//
// Events from the feed are not signed: use https, or a network that you trust.
func (f *Feed) CatchUp(ctx context.Context, h *Handler) (n int, err error) {
	cursor, err := h.options.Storage.Cursor(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the cursor of the feed: %w", err)
	}
	for {
		page, err := f.page(ctx, cursor)
		if err != nil {
			return n, err
		}
		for _, e := range page.events {
			if _, err := h.Handle(ctx, e); err != nil {
				return n, fmt.Errorf("event %s of %s: %w", e.ID, e.ResourceURL, err)
			}
			n++
		}
		if page.next != cursor {
			if err := h.options.Storage.SetCursor(ctx, page.next); err != nil {
				return n, fmt.Errorf("store the cursor of the feed: %w", err)
			}
		}
		if cursor = page.next; len(page.events) == 0 && !page.more {
			return n, nil
		}
	}
}

type feedItem struct {
	ID              string          `json:"id"`
	Sequence        int64           `json:"sequence"`
	ResourceVersion int64           `json:"resource_version"`
	body            json.RawMessage // the whole
}

// UnmarshalJSON keeps the whole, which is also the body of the webhook.
func (i *feedItem) UnmarshalJSON(b []byte) error {
	type plain feedItem
	i.body = append(json.RawMessage(nil), b...)
	return json.Unmarshal(b, (*plain)(i))
}

type feedPage struct {
	events []tidings.Event
	next   string // cursor of the next page
	more   bool   // there may be more, even if this page is empty
}

func (f *Feed) page(ctx context.Context, cursor string) (feedPage, error) {
	query := url.Values{"limit": {strconv.Itoa(feedPageSize)}}
	if cursor != "" {
		query.Set("after", cursor)
	}
	if len(f.Types) > 0 {
		query.Set("types", strings.Join(f.Types, ","))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		strings.TrimSuffix(f.URL, "/")+"/api/v1/events?"+query.Encode(), nil)
	if err != nil {
		return feedPage{}, fmt.Errorf("feed: %w", err)
	}
	if f.Token != "" {
		request.Header.Set("Authorization", "Bearer "+f.Token)
	}
	client := f.Client
	if client == nil {
		client = &http.Client{Timeout: feedTimeout}
	}
	response, err := client.Do(request)
	if err != nil {
		return feedPage{}, fmt.Errorf("feed: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, feedPageLimit))
	if err != nil {
		return feedPage{}, fmt.Errorf("feed: %w", err)
	}
	var answer struct {
		Items         []feedItem
		Next          string
		More          bool
		After, Detail string // of a problem
	}
	err = json.Unmarshal(text, &answer)
	switch {
	case response.StatusCode == http.StatusGone && answer.After != "":
		return feedPage{}, &ExpiredError{answer.After}
	case response.StatusCode != http.StatusOK:
		return feedPage{}, fmt.Errorf("feed: %s: %s", response.Status, answer.Detail)
	case err != nil:
		return feedPage{}, fmt.Errorf("feed: %w", err)
	case answer.Next == "":
		return feedPage{}, errors.New("feed: the response has no next; is the URL that of the server?")
	}
	page := feedPage{next: answer.Next, more: answer.More}
	for _, item := range answer.Items {
		known, err := knownMembers(item.body)
		if err != nil {
			return feedPage{}, fmt.Errorf("feed: %w", err)
		}
		var e tidings.Event
		if err := e.UnmarshalJSON(known); err != nil {
			return feedPage{}, fmt.Errorf("feed: %w", err)
		}
		e.ID, e.Sequence, e.ResourceVersion = item.ID, item.Sequence, item.ResourceVersion
		page.events = append(page.events, e)
	}
	return page, nil
}
