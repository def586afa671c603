package operator

import (
	"net/http"

	"github.com/tidings-dev/tidings/internal/rest"
	"github.com/tidings-dev/tidings/outbox"
	"github.com/tidings-dev/tidings/vocabulary"
)

// Searches end early, so that few events suffice to test how they continue.
func init() { searchLimit, searchStep, blockSpan = 500, 100, 1 }

// Source is what a feed reads.
type Source = source

// FeedHandler is a [Handler] that has the feed of a source and nothing else.
func FeedHandler(from Source, types outbox.Types, authorize Authorize) http.Handler {
	s := New(nil, Options{})
	return s.handler(http.NewServeMux(), authorize, func(api *rest.API) func(http.Handler) http.Handler {
		f := &feed{API: api, types: func() vocabulary.Types { return types }, source: func() source { return from }}
		f.register()
		return f.streams
	})
}

// ConsoleRoutes returns the method, pattern and parameters of each route of the console.
func ConsoleRoutes() (all [][3]string) {
	for _, r := range new(ui).routes() {
		all = append(all, [3]string{r.method, r.pattern, r.takes})
	}
	return all
}
