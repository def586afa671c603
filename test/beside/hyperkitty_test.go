package beside

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tidings-dev/tidings/internal/testtool"
)

// HyperKitty, a mailing list archive in Django, runs as packaged by Debian. Exactly the
// changes of its tables arrive, a visitor's changes with the visitor's id.
func TestHyperKitty(t *testing.T) {
	testtool.InAll(t)
	needPython(t, "hyperkitty")
	w := newWorld(t)
	folder := w.project()
	django := func(args ...string) string {
		cmd := exec.Command(python, append([]string{"-m", "django"}, args...)...)
		cmd.Dir = folder
		cmd.Env = append(os.Environ(), "PYTHONPATH="+folder, "DJANGO_SETTINGS_MODULE=settings", "TEST_DATABASE="+w.app,
			"LC_ALL=C.UTF-8")
		return w.run(cmd)
	}
	django("migrate", "--verbosity", "0")

	var tables []table
	sources := make(map[string]any)
	for _, kind := range []string{
		"attachment", "email", "favorite", "lastview", "mailinglist", "sender", "tag", "tagging", "thread",
		"threadcategory", "vote",
	} {
		t := table{"app.hyperkitty_" + kind, kind, "id"}
		if kind == "sender" {
			t.key = "address"
		}
		tables = append(tables, t)
		sources[t.name] = map[string]any{"type": kind, "url": "https://lists.example.com/" + kind + "/{" + t.key + "}"}
	}
	w.audit(tables)
	w.relay(map[string]any{"sources": map[string]any{"tables": sources}, "types": map[string]any{last: nil}})

	mailbox := filepath.Join(folder, "mailbox")
	if err := os.WriteFile(mailbox, []byte(mails()), 0o600); err != nil {
		t.Fatal(err)
	}
	django("hyperkitty_import", "--no-sync-mailman", "--list-address", "talk@lists.example.com", mailbox)
	events := w.exact()
	count := make(map[string]int)
	for _, t := range tables {
		count[t.kind] = w.rows(t, events)
	}
	if count["email"] != 400 || count["thread"] != 80 || count["sender"] != 17 || count["attachment"] == 0 {
		t.Errorf("imported: %v", count)
	}

	visit, err := os.ReadFile("hyperkitty/visit.py")
	if err != nil {
		t.Fatal(err)
	}
	out := django("shell", "--command", string(visit))
	visitor := regexp.MustCompile(`visitor (\d+)`).FindStringSubmatch(out)
	if visitor == nil {
		t.Fatalf("the visitor is missing:\n%s", out)
	}
	events = w.exact()
	for _, t := range tables {
		w.rows(t, events)
	}
	seen := make(map[string]bool)
	for _, e := range events {
		if e.UserID == visitor[1] {
			seen[e.Name()] = true
		}
		if want := "https://lists.example.com/" + string(e.Type) + "/" + url.PathEscape(e.ResourceID); e.ResourceURL != want {
			t.Errorf("URL %s, want %s", e.ResourceURL, want)
		}
	}
	for _, want := range []string{
		"vote.created", "vote.updated", "vote.deleted", "favorite.created", "tag.created", "tagging.created",
		"lastview.created", "thread.updated", "thread.deleted", "email.deleted",
	} {
		if !seen[want] {
			t.Errorf("no %s by the visitor arrived", want)
		}
	}
}

// project creates the Django project: HyperKitty, settings, and the middleware from the
// documentation.
func (w *world) project() string {
	w.Helper()
	folder := w.TempDir()
	settings, err := os.ReadFile("hyperkitty/settings.py")
	if err != nil {
		w.Fatal(err)
	}
	for name, text := range map[string]string{
		"settings.py": string(settings), "shop.py": snippet(w.T, "Django", "python"),
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			w.Fatal(err)
		}
	}
	return folder
}

// mails returns a mailbox of 400 mails in 80 threads from 17 senders, some with
// attachments.
func mails() string {
	var b strings.Builder
	for i := range 400 {
		date, thread := time.Date(2026, 3, 1, 12, 7*i, 0, 0, time.UTC), i%80
		fmt.Fprintf(&b, "From person%d@example.com %s\n", i%17, date.Format(time.ANSIC))
		fmt.Fprintf(&b, "From: Person %d <person%d@example.com>\nTo: talk@lists.example.com\n", i%17, i%17)
		fmt.Fprintf(&b, "Date: %s\nMessage-ID: <mail-%d@example.com>\n", date.Format(time.RFC1123Z), i)
		subject := fmt.Sprintf("Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= %d\n", thread)
		if i >= 80 {
			subject = strings.Replace(subject, ": ", ": Re: ", 1)
			fmt.Fprintf(&b, "In-Reply-To: <mail-%d@example.com>\n", i-80*(1+i%(i/80)))
		}
		b.WriteString(subject)
		if i%23 == 0 {
			b.WriteString("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=part\n\n--part\n" +
				"Content-Type: text/plain\n\nSee below.\n\n--part\nContent-Type: application/octet-stream\n" +
				"Content-Disposition: attachment; filename=data.bin\nContent-Transfer-Encoding: base64\n\nAAECAwQ=\n--part--\n\n")
			continue
		}
		fmt.Fprintf(&b, "\nThis is mail %d.\n\n", i)
	}
	return b.String()
}
