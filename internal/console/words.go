package console

import (
	"fmt"
	"html"
	"html/template"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Number returns a whole number with separators, such as 2,457,365.
func Number(v any) string {
	var n int64
	switch r := reflect.Indirect(reflect.ValueOf(v)); {
	case r.CanInt():
		n = r.Int()
	case r.CanUint():
		n = int64(r.Uint())
	case r.CanFloat():
		return strconv.FormatFloat(r.Float(), 'f', 1, 64)
	}
	text := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, text = "−", text[1:]
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

const day = 24 * time.Hour

// Duration returns how long something takes in at most two units, such as 6 d 14 h.
func Duration(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < day:
		return two(int(d/time.Hour), "h", int(d%time.Hour/time.Minute), "min")
	case d < 10*day:
		return two(int(d/day), "d", int(d%day/time.Hour), "h")
	}
	return fmt.Sprintf("%d d", d/day)
}

func two(a int, unit string, b int, smaller string) string {
	if b == 0 {
		return fmt.Sprintf("%d %s", a, unit)
	}
	return fmt.Sprintf("%d %s %d %s", a, unit, b, smaller)
}

// Micros returns a short duration, such as 2.2 ms.
func Micros(us int64) string {
	switch {
	case us == 0:
		return "–"
	case us < 10_000:
		return fmt.Sprintf("%.1f ms", float64(us)/1e3)
	case us < 1_000_000:
		return fmt.Sprintf("%d ms", us/1000)
	}
	return fmt.Sprintf("%.1f s", float64(us)/1e6)
}

// instant accepts a time, or its text in the API; ok is false if it is neither.
func instant(v any) (t time.Time, ok bool) {
	switch v := v.(type) {
	case time.Time:
		t = v
	case *time.Time:
		if v != nil {
			t = *v
		}
	case string:
		t, _ = time.Parse(time.RFC3339Nano, v)
	}
	return t, !t.IsZero()
}

// form is how a time is shown; the script knows the same forms.
func (p *Page) stamp(v any, form string, text func(time.Time) string) template.HTML {
	t, ok := instant(v)
	if !ok {
		return `<span class="zero">–</span>`
	}
	local := t.In(p.Zone)
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s" data-f="%s">%s</time>`, //nolint:gosec // escaped
		t.UTC().Format("2006-01-02T15:04:05Z"),
		html.EscapeString(local.Format("Mon 2 Jan 2006, 15:04:05 ")+p.Zone.String()), form,
		html.EscapeString(text(local))))
}

// Ago shows how long ago a time was if that is under a day, else the date and time.
func (p *Page) Ago(v any) template.HTML {
	return p.stamp(v, "ago", func(t time.Time) string {
		if d := p.Now.Sub(t); d < day {
			return Duration(max(d, 0)) + " ago"
		}
		return p.clock(t)
	})
}

// For shows how long it has been since a time.
func (p *Page) For(v any) template.HTML {
	return p.stamp(v, "for", func(t time.Time) string { return Duration(max(p.Now.Sub(t), 0)) })
}

// In shows how long it is until a time.
func (p *Page) In(v any) template.HTML {
	return p.stamp(v, "in", func(t time.Time) string {
		if d := t.Sub(p.Now); d > time.Second {
			return "in " + Duration(d)
		}
		return "now"
	})
}

// Clock shows the time of day, with the day unless it is today.
func (p *Page) Clock(v any) template.HTML { return p.stamp(v, "clock", p.clock) }

// Full shows the date and the time of day.
func (p *Page) Full(v any) template.HTML {
	return p.stamp(v, "full", func(t time.Time) string { return t.Format("Mon 2 Jan 2006, 15:04:05") })
}

func (p *Page) clock(t time.Time) string {
	now := p.Now.In(p.Zone)
	switch age := now.Sub(t).Abs(); {
	case now.YearDay() == t.YearDay() && age < day:
		return t.Format("15:04:05")
	case age < 7*day:
		return t.Format("Mon 15:04:05")
	}
	return t.Format("2 Jan 15:04")
}

// Soon reports whether a time is within a day.
func (p *Page) Soon(v any) bool {
	t, ok := instant(v)
	return ok && t.Sub(p.Now) < day
}

// ZoneName returns the zone as the footer shows it.
func (p *Page) ZoneName() string {
	if p.Zone == time.UTC {
		return "UTC"
	}
	_, offset := p.Now.In(p.Zone).Zone()
	return fmt.Sprintf("%s, UTC%+d", p.Zone, offset/3600)
}

// words are what the console calls states, outcomes and fates that have another name in
// the API.
var words = map[string]string{
	"sqlite": "SQLite", "postgresql": "PostgreSQL",
	"not_matched": "not wanted", "expired": "lost to retention", "refusing": "refuses some", "canceled": "cancelled",
}

// Word returns the console's word for a state, outcome or fate.
func Word(state any) string {
	text := fmt.Sprint(state)
	if w, ok := words[text]; ok {
		return w
	}
	return text
}

// shortResource shortens the id of a resource for tables.
func shortResource(resource string) string {
	typ, id, found := strings.Cut(resource, "/")
	if first, _, dashed := strings.Cut(id, "-"); found && dashed && len(id) == 36 {
		return typ + "/" + first + "…"
	}
	return cut(48, resource)
}

// breakable lets the name of an event break after its dot.
func breakable(event string) template.HTML {
	escaped := template.HTMLEscapeString(event)
	return template.HTML(strings.ReplaceAll(escaped, ".", ".<wbr>")) //nolint:gosec // it is escaped
}

// cut shortens a text to n characters.
func cut(n int, text string) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n]) + "…"
}

// When parses a point in time as people write it: a duration before now such as 2h, a
// time of day, a day of the week with it, or RFC 3339.
func (p *Page) When(text string) (time.Time, error) {
	text = strings.TrimSpace(text)
	now := p.Now.In(p.Zone)
	if text == "" || text == "now" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return p.Now.Add(-time.Duration(n) * day), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil {
		return p.Now.Add(-d.Abs()), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, p.Zone); err == nil {
			return t, nil
		}
	}
	weekday, clock, named := strings.Cut(text, " ")
	if !named {
		clock = text
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		c, err := time.Parse(layout, strings.TrimSpace(clock))
		if err != nil {
			continue
		}
		t := time.Date(now.Year(), now.Month(), now.Day(), c.Hour(), c.Minute(), c.Second(), 0, p.Zone)
		if !named && t.After(now) {
			t = t.AddDate(0, 0, -1)
		}
		for back := 0; named && back < 8; back++ {
			if t := t.AddDate(0, 0, -back); strings.EqualFold(t.Format("Mon"), weekday) && !t.After(now) {
				return t, nil
			}
		}
		if !named {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time; write 2h, 02:00, Tue 14:00 or 2026-11-25T14:00:00Z", cut(40, text))
}
