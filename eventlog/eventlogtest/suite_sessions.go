package eventlogtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-dev/tidings/eventlog"
)

func testSessions(t *testing.T, home Home) {
	keeper, ctx := part[eventlog.Sessions](t, home), t.Context()
	now := time.Now().UTC().Truncate(time.Microsecond)
	long := now.Add(-time.Hour)
	session := func(n int, used time.Time) eventlog.Session {
		return eventlog.Session{
			Key: fmt.Sprint("key-", n), Proof: "proof", User: "sam@example.com", UserID: "7", Role: "admin", Address: "::1",
			Since: long, Used: used,
		}
	}
	want := []eventlog.Session{session(1, now), session(2, now.Add(-time.Minute)), session(3, now.Add(-2*time.Minute))}
	for _, s := range want {
		if err := keeper.AddSession(ctx, s, long, long); err != nil {
			t.Fatal(err)
		}
	}
	list := func() []eventlog.Session {
		t.Helper()
		got, err := keeper.Sessions(ctx, 10)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if diff := cmp.Diff(want, list()); diff != "" {
		t.Errorf("sessions (-want +got):\n%s", diff)
	}
	for range 2 { // an earlier use changes nothing
		if err := keeper.UseSession(ctx, "key-2", now.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := keeper.UseSession(ctx, "key-2", long); err != nil {
			t.Fatal(err)
		}
	}
	found, ok, err := keeper.SessionOf(ctx, "key-2")
	want[1].Used = now.Add(time.Second)
	if diff := cmp.Diff(want[1], found); err != nil || !ok || diff != "" {
		t.Errorf("a session: %v, %v (-want +got):\n%s", ok, err, diff)
	}
	for key, want := range map[string]bool{"key-3": true, "other": false} {
		if ended, err := keeper.EndSession(ctx, key); err != nil || ended != want {
			t.Errorf("%s ended: %v, %v", key, ended, err)
		}
		if _, ok, err := keeper.SessionOf(ctx, key); err != nil || ok {
			t.Errorf("%s exists: %v, %v", key, ok, err)
		}
	}
	// A new one removes those past their limits.
	if err := keeper.AddSession(ctx, session(4, now.Add(2*time.Second)), now.Add(time.Millisecond), long); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]eventlog.Session{session(4, now.Add(2*time.Second)), want[1]}, list()); diff != "" {
		t.Errorf("remaining sessions (-want +got):\n%s", diff)
	}
}
