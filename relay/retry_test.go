package relay

import (
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	short := []time.Duration{time.Second, time.Minute}
	for _, test := range []struct {
		name     string
		schedule Schedule
		attempts int
		age      time.Duration
		want     time.Duration // give or take a fifth; 0 is the end
	}{
		{"default, first", Schedule{}, 1, 0, 5 * time.Second},
		{"default, last", Schedule{}, 9, 52 * time.Hour, 24 * time.Hour},
		{"default, end", Schedule{}, 10, 76 * time.Hour, 0},
		{"own delays", Schedule{Delays: short}, 2, time.Second, time.Minute},
		{"own delays, end", Schedule{Delays: short}, 3, time.Minute, 0},
		{"fewer attempts than delays", Schedule{MaxAttempts: 2}, 2, 5 * time.Second, 0},
		{"one attempt", Schedule{MaxAttempts: 1}, 1, 0, 0},
		{"more attempts than delays", Schedule{Delays: short, MaxAttempts: 5}, 4, time.Hour, time.Minute},
		{"more attempts than delays, end", Schedule{Delays: short, MaxAttempts: 5}, 5, time.Hour, 0},
		{"young enough", Schedule{Delays: short, MaxAge: time.Hour}, 2, 58 * time.Minute, time.Minute},
		{"too old", Schedule{Delays: short, MaxAge: time.Hour}, 2, time.Hour, 0},
	} {
		for range 100 { // jitter
			got, more := test.schedule.next(test.attempts, test.age)
			if more != (test.want > 0) || got < test.want*8/10 || got > test.want*12/10 {
				t.Fatalf("%s: %v, %v; want %v", test.name, got, more, test.want)
			}
		}
	}
}
