package operator

import (
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/eventlog"
	"github.com/tidings-dev/tidings/internal/console"
)

const (
	// changesShown is how many retries and discards of many events a page lists, and
	// changeShown how long it lists one that has ended.
	changesShown = 20
	changeShown  = 10 * time.Minute
)

type changeRow struct {
	*ParkedChange
	What, Filter, Shown string
	Percent             int64
	Cancel              *button
}

// changeRows fills in the retries and discards that go on, or have just ended.
func (u *ui) changeRows(a *asked, v *parkedView) error {
	page, err := u.ParkedChanges(a.Context(), changesShown)
	if err != nil {
		return err
	}
	for _, c := range page.Items {
		running := c.State == string(eventlog.ReplayRunning)
		if ended, err := time.Parse(time.RFC3339, c.Updated); err != nil || !running && time.Since(ended) > changeShown {
			continue
		}
		row := changeRow{ParkedChange: c, What: c.what(), Filter: strings.TrimPrefix(selectionText(c.selection()), ", ")}
		row.Percent = 100 * c.Done / max(c.Total, 1)
		row.Shown = fmt.Sprintf("%s of %s", console.Number(c.Done), console.Number(c.Total))
		if running {
			a.page.Live = true
			where := a.page.URL("parked", "changes", c.ID, "cancel")
			row.Cancel = &button{ID: "cancel-" + c.ID[:min(8, len(c.ID))], Text: "Cancel…", Class: "tight", Page: where}
			question := cancelChangeQuestion(c)
			question.ID, question.Page = row.Cancel.ID, where
			v.Dialogs = append(v.Dialogs, question)
		}
		v.Changes = append(v.Changes, row)
	}
	return nil
}

func (c *ParkedChange) selection() ParkedSelection {
	return ParkedSelection{
		Endpoint: c.Endpoint, Dead: c.Dead, Reason: c.Reason, Types: c.Types, Resource: c.Resource,
	}
}

func (c *ParkedChange) what() string {
	if c.Action == string(eventlog.DiscardAction) {
		return "Discard"
	}
	return "Retry"
}

func cancelChangeQuestion(c *ParkedChange) confirm {
	done := "will be tried now"
	if c.Action == string(eventlog.DiscardAction) {
		done = "are discarded"
	}
	return confirm{
		Heading: fmt.Sprintf("Cancel this %s?", c.Action), Cancel: "Go on", Go: "Cancel the " + c.Action, Grave: true,
		Lines: []template.HTML{text("%s of %s events %s; the other %s stay parked.", console.Number(c.Done),
			console.Number(c.Total), done, console.Number(c.Total-c.Done))},
	}
}

func (u *ui) askCancelChange(a *asked) error {
	change, err := u.ParkedChange(a.Context(), a.PathValue("id"))
	if err != nil {
		return err
	}
	c := cancelChangeQuestion(change)
	c.ID, c.Page, c.Back = "cancel", a.URL.Path, a.page.URL("parked")
	return u.show(a, http.StatusOK, "confirm", "Parked", c.Heading, c)
}

func (u *ui) cancelChange(a *asked) error {
	c, err := u.CancelParkedChange(a.actor(), a.PathValue("id"))
	if err != nil {
		return err
	}
	return u.done(a, a.page.URL("parked"), console.Note{
		Kind: "good", Strong: fmt.Sprintf("The %s for %s is cancelled.", c.Action, c.Endpoint),
	})
}
