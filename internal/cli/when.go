package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/tidings-dev/tidings"
)

// seconds formats a duration to the millisecond, for programs.
func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

const day = 24 * time.Hour

// short formats a duration for people: 8s, 12m, 5h, 3d.
func short(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	case d < 2*time.Hour:
		return strconv.FormatInt(int64(d/time.Minute), 10) + "m"
	case d < 2*day:
		return strconv.FormatInt(int64(d/time.Hour), 10) + "h"
	}
	return strconv.FormatInt(int64(d/day), 10) + "d"
}

// relative formats a time relative to now: 8s ago, in 5m.
func relative(t, now time.Time) string {
	switch d := now.Sub(t); {
	case d >= time.Second:
		return short(d) + " ago"
	case d > -time.Second:
		return "now"
	default:
		return "in " + short((-d).Round(time.Second))
	}
}

// lasted formats a duration for a table cell: short on a terminal.
func (c *client) lasted(s float64) string {
	if !isTerminal(c.out) {
		return seconds(s)
	}
	return short(time.Duration(s * float64(time.Second)))
}

// cell formats a time for a table cell: relative on a terminal without --utc, otherwise
// exact.
func (c *client) cell(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || c.utc || !isTerminal(c.out) {
		return text
	}
	return relative(t, time.Now())
}

// exact formats a time exactly, in the local time zone unless --utc is set, and
// relative to now.
func (c *client) exact(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return text
	}
	return c.zoned(text) + ", " + relative(t, time.Now())
}

// zoned formats a time in the local time zone unless --utc is set.
func (c *client) zoned(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || c.utc || t.Local().Location() == time.UTC {
		return text
	}
	return t.Local().Format("2006-01-02T15:04:05.000Z07:00")
}

var stamps = regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

// zonedText formats the times in a text from the server with zoned.
func (c *client) zonedText(text string) string { return stamps.ReplaceAllStringFunc(text, c.zoned) }

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(tidings.TimeLayout)
}

var daysAgo = regexp.MustCompile(`^(\d{1,5})([dw])(.*)$`)

// ago parses an age: 90s, 2h30m, 2d, 1w.
func ago(text string) (time.Duration, error) {
	days := time.Duration(0)
	if m := daysAgo.FindStringSubmatch(text); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, err
		}
		days = time.Duration(n) * day
		if m[2] == "w" {
			days *= 7
		}
		if text = m[3]; text == "" {
			return days, nil
		}
	}
	rest, err := time.ParseDuration(text)
	if err == nil && rest < 0 {
		err = fmt.Errorf("%s is in the future", text)
	}
	return days + rest, err
}

// pointInTime parses a time in RFC 3339 or an age such as "2h".
func pointInTime(flag, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	if d, err := ago(text); err == nil {
		return stamp(time.Now().Add(-d)), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "", &usageError{fmt.Errorf("--%s: expected a time such as 2026-03-26T12:00:00Z, or an age such as 2h or 2d",
			flag)}
	}
	return stamp(at), nil
}

// interval is the value of a flag that is a duration, such as 90s, 2h or 2d.
type interval struct {
	value    *time.Duration
	positive bool
}

const intervalType = "duration"

func (v *interval) String() string { return v.value.String() }
func (v *interval) Type() string   { return intervalType }

func (v *interval) Set(text string) error {
	d, err := ago(text)
	if err != nil || d < 0 || d == 0 && v.positive {
		if v.positive {
			return errors.New("expected a duration of more than 0, such as 30s, 2h or 2d")
		}
		return errors.New("expected a duration, such as 30s, 2h or 2d")
	}
	*v.value = d
	return nil
}

// duration adds a flag whose value must be a duration of at least 0.
func duration(f *pflag.FlagSet, value *time.Duration, name string, byDefault time.Duration, usage string) {
	*value = byDefault
	f.Var(&interval{value, false}, name, usage)
}

// positiveDuration is duration for values of more than 0.
func positiveDuration(f *pflag.FlagSet, value *time.Duration, name string, byDefault time.Duration, usage string) {
	*value = byDefault
	f.Var(&interval{value, true}, name, usage)
}
