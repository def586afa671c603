package operator_test

import (
	"strings"
	"testing"
	"time"
)

// A replica of another version is a problem, and the status shows what each replica says
// of itself.
func TestReplicasOfTwoVersions(t *testing.T) {
	both(t, func(w *world) {
		w.run()
		w.waitFor("a replica", func() bool {
			status, err := w.service.Status(w.Context())
			return err == nil && len(status.Replicas) == 1 && status.Replicas[0].State == "ready" &&
				status.Replicas[0].Memory > 0 && status.Replicas[0].Since != ""
		})
		table := w.schema() + "tidings_replicas"
		_, err := w.db.ExecContext(w.Context(), `INSERT INTO `+table+` (id, fellows, expires_at, version, started_at, memory)
			SELECT 'zz-other', fellows, expires_at + 30000000, '0.5.0', 1767323045000000, 67108864 FROM `+table)
		if err != nil {
			t.Fatal(err)
		}
		for target, wants := range map[string][]string{
			"/webhooks/status": {
				`"name":"zz-other","state":"differs","leases":0,"since":"2026-01-02T03:04:05Z","version":"0.5.0"`,
				`"memory_bytes":67108864`,
			},
			"/webhooks/problems": {`"kind":"replicas"`, " has an unknown version and zz-other has version 0.5.0: run"},
			"/console/status":    {`data-state="drift">differs</span>`, "64 MiB</td>", "to look at"},
		} {
			got := w.get(target).text
			for _, want := range wants {
				if !strings.Contains(got, want) {
					t.Errorf("%s lacks %q: %s", target, want, got)
				}
			}
		}
	})
}

// The status says when the changes of the first and the last event of the log were made.
func TestStatusAgesOfLog(t *testing.T) {
	both(t, func(w *world) {
		if status, err := w.service.Status(w.Context()); err != nil || status.Log.HeadAt+status.Log.OldestAt != "" {
			t.Errorf("an empty log: %+v, %v", status, err)
		}
		first, last := order("1", "ann"), order("2", "ann")
		first.Time, last.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)
		w.tell(first, order("3", "ann"), last)
		for target, wants := range map[string][]string{
			"/webhooks/status": {`"head":3,"head_at":"2026-01-02T03:04:06Z","oldest":1,"oldest_at":"2026-01-02T03:04:05Z"`},
			"/console/status": {
				`<dd>position 3, <time datetime="2026-01-02T03:04:06Z"`, `<dd>position 1, <time datetime="2026-01-02T03:04:05Z"`,
				"0 expired before an endpoint received them",
			},
		} {
			got := w.get(target).text
			for _, want := range wants {
				if !strings.Contains(got, want) {
					t.Errorf("%s lacks %q: %s", target, want, got)
				}
			}
		}
	})
}
