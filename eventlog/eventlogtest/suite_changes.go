package eventlogtest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tidings-dev/tidings/eventlog"
)

func testParkedChanges(t *testing.T, home Home) {
	keeper, ctx := part[eventlog.ParkedChanges](t, home), t.Context()
	at := time.Date(2026, 3, 26, 12, 0, 0, 5000, time.UTC)
	one := eventlog.ParkedChange{
		ID: "1", Action: eventlog.DiscardAction, Endpoint: "a", Dead: true, Reason: "http_422", Resource: "provider/x",
		Patterns: []string{"provider.*", "*.deleted"}, Comment: "why", To: 90, Total: 5000,
		State: eventlog.ReplayRunning, Created: at, Updated: at, CreatedBy: "ada",
	}
	two := eventlog.ParkedChange{
		ID: "2", Action: eventlog.RetryAction, Endpoint: "a", To: 90, Total: 2000, State: eventlog.ReplayRunning,
		Created: at.Add(time.Second), Updated: at,
	}
	for _, c := range []eventlog.ParkedChange{two, one} {
		if err := keeper.AddParkedChange(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := keeper.AddParkedChange(ctx, eventlog.ParkedChange{ID: "3", Patterns: []string{"provider"}}); err == nil {
		t.Error("a change with an unreadable pattern was added")
	}
	take := func(owner, want string) eventlog.ParkedChange {
		t.Helper()
		c, found, err := keeper.TakeParkedChange(ctx, owner)
		if err != nil || found != (want != "") || c.ID != want {
			t.Errorf("%s takes %q, %v, %v; want %q", owner, c.ID, found, err, want)
		}
		return c
	}
	save := func(owner string, c eventlog.ParkedChange, want bool) {
		t.Helper()
		if goesOn, err := keeper.SaveParkedChange(ctx, owner, c); goesOn != want || err != nil {
			t.Errorf("%s saves change %s: %v, %v; want %v", owner, c.ID, goesOn, err, want)
		}
	}
	if diff := cmp.Diff(one, take("first", "1")); diff != "" {
		t.Errorf("taken (-want +got):\n%s", diff)
	}
	take("first", "1")
	take("second", "2")
	take("third", "")
	one.Position, one.Done = 40, 1000
	save("second", one, false)
	save("first", one, true)
	saved, found, err := keeper.ParkedChange(ctx, "1")
	if diff := cmp.Diff(one, saved, cmpopts.IgnoreFields(one, "Updated")); diff != "" || !found || err != nil {
		t.Errorf("saved, %v, %v (-want +got):\n%s", found, err, diff)
	}
	for _, want := range []bool{true, false} {
		if canceled, err := keeper.CancelParkedChange(ctx, "1"); canceled != want || err != nil {
			t.Errorf("canceled %v, %v; want %v", canceled, err, want)
		}
	}
	one.Done, one.State = 2000, eventlog.ReplayDone
	save("first", one, false)
	if saved, _, err := keeper.ParkedChange(ctx, "1"); saved.State != eventlog.ReplayCanceled || saved.Done != 2000 {
		t.Errorf("a canceled change: %+v, %v", saved, err)
	}
	take("first", "")
	if all, err := keeper.ParkedChanges(ctx, 10); len(all) != 2 || all[0].ID != "2" || err != nil {
		t.Errorf("all = %v, %v; want the newest first", all, err)
	}
	if err := keeper.ExpireParkedChanges(ctx, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if all, err := keeper.ParkedChanges(ctx, 10); len(all) != 1 || all[0].ID != "2" || err != nil {
		t.Errorf("left are %v, %v; want the one that runs", all, err)
	}
	for n := 0; ; n++ {
		two.ID = fmt.Sprint("more-", n)
		if err := keeper.AddParkedChange(ctx, two); err == nil && n < eventlog.MaxParkedChanges {
			continue
		} else if !errors.Is(err, eventlog.ErrManyParkedChanges) || n != eventlog.MaxParkedChanges-1 {
			t.Errorf("after %d changes: %v", n+1, err)
		}
		return
	}
}
