package operator

import (
	"context"
	"net/http"

	"github.com/tidings-dev/tidings/internal/rest"
)

// parkedListing is the query of lists of parked events.
type parkedListing struct {
	Endpoint string `query:"endpoint"`
	Dead     bool   `query:"dead" doc:"Dead letters only."`
	Reason   string `query:"reason" doc:"Those whose last attempt failed for that reason, such as http_422."`
	Types    string `query:"types" doc:"Patterns, separated by commas."`
	Resource string `query:"resource" doc:"An id, or a type and an id such as provider/<id>."`
	Event    string `query:"event" doc:"The id or position of one event."`
	Limit    int    `query:"limit" minimum:"1" maximum:"1000" default:"40"`
}

func (o *operations) parkedFilterOf(l *parkedListing) (ParkedFilter, error) {
	patterns, err := parsePatterns(o.types(), "types", l.Types)
	return ParkedFilter{l.Endpoint, l.Dead, l.Reason, patterns, l.Resource, l.Event}, err
}

func (o *operations) addParked() {
	type Listing = parkedListing // huma reads only exported types
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/parked", "listParked",
		"List parked events and dead letters"),
		func(ctx context.Context, in *struct {
			Listing
			After string `query:"after" doc:"The value of next from the previous page."`
		},
		) (*ParkedPage, error) {
			return rest.Scanning(ctx, o.api, func() (*ParkedPage, error) {
				f, err := o.parkedFilterOf(&in.Listing)
				if err != nil {
					return nil, err
				}
				return o.Parked(ctx, f, in.After, in.Limit)
			})
		})
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/parked/groups", "groupParked",
		"Count parked events and dead letters by endpoint, reason and answer, the largest groups first"),
		func(ctx context.Context, in *struct{ Listing }) (*Page[ParkedGroup], error) {
			return rest.Scanning(ctx, o.api, func() (*Page[ParkedGroup], error) {
				f, err := o.parkedFilterOf(&in.Listing)
				if err != nil {
					return nil, err
				}
				return o.ParkedGroups(ctx, f, in.Limit)
			})
		})
	retry := rest.Operation(http.MethodPost, "/webhooks/parked/retry", "retryParked",
		"Retry parked events and dead letters of an endpoint now")
	retry.Description = "More than 1000 are retried in the background; change shows the progress."
	retry.Errors = []int{http.StatusNotFound, http.StatusConflict}
	act(o.api, retry, func(ctx context.Context, _ string, in *rest.WithBody[RetryParked]) (*ParkedDone, error) {
		return rest.Scanning(ctx, o.api, func() (*ParkedDone, error) {
			return o.RetryParked(ctx, in.Body)
		})
	})
	discard := rest.Operation(http.MethodPost, "/webhooks/parked/discard", "discardParked",
		"Discard parked events and dead letters of an endpoint")
	discard.Description = "More than 1000 are discarded in the background; change shows the progress."
	discard.Errors = []int{http.StatusNotFound, http.StatusConflict}
	act(o.api, discard, func(ctx context.Context, _ string, in *rest.WithBody[DiscardParked]) (*ParkedDone, error) {
		return rest.Scanning(ctx, o.api, func() (*ParkedDone, error) {
			return o.DiscardParked(ctx, in.Body)
		})
	})
	o.addParkedChanges()
}

func (o *operations) addParkedChanges() {
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/parked/changes", "listParkedChanges",
		"List retries and discards of many parked events, newest first"),
		func(ctx context.Context, in *struct {
			Limit int `query:"limit" minimum:"1" maximum:"1000" default:"40"`
		},
		) (*Page[*ParkedChange], error) {
			return o.ParkedChanges(ctx, in.Limit)
		})
	look(o.api, rest.Operation(http.MethodGet, "/webhooks/parked/changes/{id}", "getParkedChange",
		"How far a retry or discard of many parked events has come"),
		func(ctx context.Context, in *rest.ByID) (*ParkedChange, error) { return o.ParkedChange(ctx, in.ID) })
	cancel := rest.Operation(http.MethodPost, "/webhooks/parked/changes/{id}/cancel", "cancelParkedChange",
		"End a retry or discard of many parked events")
	cancel.Description = "What was done stays done."
	cancel.Errors = []int{http.StatusConflict}
	act(o.api, cancel, func(ctx context.Context, _ string, in *rest.ByID) (*ParkedChange, error) {
		return o.CancelParkedChange(ctx, in.ID)
	})
}
